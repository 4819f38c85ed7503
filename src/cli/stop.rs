//! `ringpost stop`: tells a server to stop and waits until it has.

use std::path::Path;
use std::time::{Duration, Instant};

use super::client::{Server, holder, print};
use crate::exit::{Code, Failure};
use crate::ipc::control::Request;
use crate::limits::STOP_WAIT;

pub fn run(state: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + STOP_WAIT;
    Server::running(state)?.ask(&Request::Stop, |_| Ok(()))?;
    while let Some(pid) = holder(state) {
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Code::TryLater,
                format!("the server (pid {pid}) has not stopped within {} s", STOP_WAIT.as_secs()),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    print("stopped\n")
}
