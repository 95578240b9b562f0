//! Compiles the `.proto` files with protox, so that no `protoc` is needed.
use std::path::PathBuf;

use prost::Message;
use prost_types::FileDescriptorSet;

/// The number of `google.protobuf.MethodOptions.NO_SIDE_EFFECTS`.
const NO_SIDE_EFFECTS: i32 = 1;

/// The gRPC paths of the methods without side effects.
fn idempotent(descriptors: &FileDescriptorSet) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                let level = method.options.as_ref().and_then(|options| options.idempotency_level);
                if level == Some(NO_SIDE_EFFECTS) {
                    paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
    }
    paths
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/session.proto", "proto/statesync.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    std::fs::write(out.join("idempotent.rs"), format!("&{:?}", idempotent(&descriptors)))?;
    // An operation is four times as large as the reason why it is refused.
    let answer = ".aetherflow.statesync.ApplyOperationsResponse.outcome.answer";
    tonic_prost_build::configure().bytes(".").boxed(answer).compile_fds(descriptors)?;
    Ok(())
}
