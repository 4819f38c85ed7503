//! As the program: lets io_uring_setup(2) be called with a flag that glommio does not know, where an example runs a shard.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-examples=-Wl,--wrap=__sys_io_uring_setup");
}
