//! Facts of the build that the program tells: commit, target, compiler. And the messages of gRPC,
//! generated from `proto/`, with the descriptors that reflection tells.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// What messages are generated from.
const PROTO: [&str; 3] =
    ["inference.proto", "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto"];

/// The older name of the reflection service, of the same messages: only told.
const PROTO_TOLD: &str = "grpc/reflection/v1alpha/reflection.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    messages()?;
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    println!("cargo::rustc-env=BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    println!("cargo::rustc-env=BUILD_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_TARGET={target}");
    Ok(())
}

/// Compiled by a compiler in Rust, so that nobody needs `protoc`.
fn messages() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(PROTO)?.open_file(PROTO_TOLD)?;
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    // Bytes are shared with the message that they came in; maps in order, without random state.
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(protox::compile(PROTO, ["proto"])?)?;
    Ok(())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
