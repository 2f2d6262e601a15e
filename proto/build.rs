//! Generates the control plane's messages, client and server from `proto/control.proto`. protox compiles it, so no
//! protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/control.proto");
    let descriptors = protox::compile(["control.proto"], ["proto"])?;
    // Transports are the program's business: this crate does no I/O.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
