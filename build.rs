//! Build script: compiles `proto/`, and passes to the program the git revision, the compiler version, and whether the
//! build is optimized with a profile.

#![expect(clippy::disallowed_methods, reason = "a build script is configured by variables only")]

use std::path::PathBuf;
use std::process::Command;

use prost::Message;

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    compile_protos();
    println!("cargo:rerun-if-env-changed=REVWALLET_REVISION");
    let revision = std::env::var("REVWALLET_REVISION").ok().filter(|text| !text.is_empty());
    let revision = revision.or_else(revision_of_checkout).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=REVWALLET_REVISION={revision}");

    let options = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if options.contains("profile-use=") {
        println!("cargo:rustc-env=REVWALLET_PROFILED=yes");
    }

    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output(Command::new(rustc).arg("--version")).unwrap_or_default();
    let number = version.split(' ').nth(1).unwrap_or("unknown").to_owned();
    println!("cargo:rustc-env=REVWALLET_RUSTC={number}");
}

/// Compiles `proto/` without the program `protoc`.
fn compile_protos() {
    println!("cargo:rerun-if-changed=proto");
    let compile = |file: &str, has_client: bool| {
        let descriptors = protox::compile([file], ["proto"]);
        let descriptors =
            descriptors.unwrap_or_else(|cause| panic!("proto/ is not valid: {cause:?}"));
        tonic_prost_build::configure()
            .build_client(has_client)
            .compile_fds(descriptors.clone())
            .unwrap_or_else(|cause| panic!("proto/ cannot be compiled: {cause}"));
        descriptors
    };
    // Reflection describes the public services only.
    let public = compile("revwallet/v1/wallet.proto", false);
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("Cargo sets it"));
    std::fs::write(out_dir.join("descriptors.bin"), public.encode_to_vec())
        .expect("the folder of the build is writable");
    compile("revwallet/internal/v1/ledger.proto", true);
}

fn revision_of_checkout() -> Option<String> {
    // The log of HEAD changes with each commit and each checkout.
    let log = output(Command::new("git").args(["rev-parse", "--git-path", "logs/HEAD"]))?;
    println!("cargo:rerun-if-changed={log}");
    output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))
}

/// Standard output of a command, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
