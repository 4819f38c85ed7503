//! Lets io_uring_setup(2) be called with a flag that glommio does not know: `io/src/ring/setup.rs` says what for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
