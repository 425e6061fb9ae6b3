//! The generated service that the bare gRPC server is made of, as any server of tonic's is.

use std::error::Error;

const PROTO: &str = "inference.proto";
const FOLDER: &str = "../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={FOLDER}");
    let files = protox::compile([PROTO], [FOLDER])?;
    tonic_prost_build::configure().build_client(false).compile_fds(files)?;
    Ok(())
}
