//! The hidden commands by which the supervisor starts the other two processes. Their standard input is its channel.

use std::ffi::CStr;
use std::process::ExitCode;

use crate::exit::{Code, Failure};
use crate::ipc::codec::Channel;
use crate::{engine, keyholder};

pub fn engine() -> ExitCode {
    match channel(c"ringpost-engine") {
        Ok(channel) => engine::run(channel),
        Err(failure) => failure.report(),
    }
}

pub fn keyholder() -> ExitCode {
    match channel(c"ringpost-keys").and_then(|channel| Ok(keyholder::run(&channel)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn channel(name: &CStr) -> Result<Channel, Failure> {
    let channel = Channel::inherited()?;
    if !channel.is_packets() {
        return Err(Failure::new(Code::Failed, "this command is for `ringpost serve` alone to run"));
    }
    // Only the name in listings of processes.
    let _ = rustix::thread::set_name(name);
    Ok(channel)
}
