//! The hidden commands by which the supervisor starts the other two processes, and its helpers. Their standard input is its channel.

use std::ffi::CString;
use std::process::ExitCode;

use crate::exit::{Code, Failure};
use crate::ipc::codec::Channel;
use crate::{engine, keyholder, lookup, supervisor};

/// What the engine is called in listings of processes.
pub const ENGINE_NAME: &str = "ringpost-engine";

pub fn engine() -> ExitCode {
    match channel(ENGINE_NAME) {
        Ok(channel) => engine::run(channel),
        Err(failure) => failure.report(),
    }
}

pub fn keyholder() -> ExitCode {
    match channel("ringpost-keys").and_then(|channel| Ok(keyholder::run(&channel)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

pub fn errand() -> ExitCode {
    match channel("ringpost-errand").and_then(|channel| Ok(supervisor::delivery::run(&channel)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

pub fn lookup() -> ExitCode {
    match channel("ringpost-lookup").and_then(|channel| Ok(lookup::run(&channel)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(feature = "pam")]
pub fn logon() -> ExitCode {
    match channel("ringpost-logon").and_then(|channel| Ok(supervisor::modules::run(&channel)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn channel(name: &str) -> Result<Channel, Failure> {
    let channel = Channel::inherited()?;
    if !channel.is_packets() {
        return Err(Failure::new(Code::Failed, "this command is for `ringpost serve` alone to run"));
    }
    // Only the name in listings of processes.
    let _ = CString::new(name).map(|name| rustix::thread::set_name(&name));
    Ok(channel)
}
