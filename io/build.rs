//! Links this package's tests as programs are linked: `src/ring/setup.rs` says what for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
