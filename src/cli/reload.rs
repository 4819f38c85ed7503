//! `ringpost reload`: the running server reads its configuration again, or refuses it whole.

use std::path::Path;

use super::client::{Server, print};
use crate::exit::{Code, Failure};
use crate::ipc::control::Request;

pub fn run(state: &Path) -> Result<(), Failure> {
    match Server::running(state)?.ask(&Request::Reload, |_| Ok(())) {
        Ok(said) => print(&format!("{said}\n")),
        Err(failure) if failure.code == Code::Failed => {
            let text = format!("not reloaded, the server goes on with what it had:\n{}", failure.text);
            Err(Failure::new(Code::Configuration, text))
        }
        Err(failure) => Err(failure),
    }
}
