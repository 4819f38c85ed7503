//! Mail as most tests want it: one message to some recipients, the reply to one of them, all of it delivered.

use std::time::Duration;

use super::server::Server;
use super::text::MARK;
use super::wait::wait_until;

/// Deliveries to files and to a sink take less, on any machine.
const SOON: Duration = Duration::from_secs(20);

/// A small message with this key.
pub fn text(key: &str) -> Vec<u8> {
    format!("{MARK}{key}\r\nSubject: {key}\r\n\r\nhello {key}\r\n").into_bytes()
}

/// Sends one, which must be taken.
pub fn submit(server: &Server, to: &[&str], key: &str) {
    submit_of(server, "s@source.example", to, key);
}

/// The same, of this sender.
pub fn submit_of(server: &Server, from: &str, to: &[&str], key: &str) {
    let reply = server.client().submit(from, to, &text(key));
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// The reply to RCPT, its first line.
pub fn rcpt(server: &Server, to: &str) -> String {
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<s@source.example>").code, 250);
    let reply = client.say(&format!("RCPT TO:<{to}>"));
    format!("{} {}", reply.code, reply.lines[0])
}

/// The queue is empty: all that there was has been delivered.
pub fn wait_for_all(server: &Server) {
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}
