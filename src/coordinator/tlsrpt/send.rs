//! A report as a message (RFC 8460 §5.3): left in the spool, like mail of any program of this machine. An engine that is a
//! user of its own may not write there, and leaves it where users do.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::report::Report;
use crate::limits::TLSRPT_PLACES;
use crate::sendmail::message::Message;
use crate::sendmail::submission::Submission;
use crate::sendmail::{drop, spool};

/// Characters of a line of base64 (RFC 2045 §6.8).
const LINE: usize = 76;

/// Sends a report to those of the places that take mail.
///
/// # Errors
/// Neither the spool nor the drop directory can be written.
pub fn send(state: &Path, report: &Report<'_>, name: &str, packed: &[u8], places: &[String]) -> io::Result<()> {
    let mailboxes = places.iter().filter_map(|place| place.strip_prefix("mailto:"));
    // Parameters of the address are not for us.
    let mailboxes = mailboxes.map(|place| place.split(['?', '!']).next().unwrap_or_default());
    let good = |mailbox: &&str| {
        let whole = mailbox.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty());
        whole && mailbox.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte))
    };
    let recipients: Vec<String> = mailboxes.filter(good).take(TLSRPT_PLACES).map(str::to_owned).collect();
    if recipients.is_empty() {
        return Ok(());
    }
    let text = compose(report, name, packed, &recipients);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let message = Message { text, recipients };
    let (user, full_name) = (format!("postmaster@{}", report.hostname), "TLS reports".to_owned());
    let random = now.as_nanos() as u64 ^ u64::from(std::process::id());
    let mut submission = Submission::new(message, user.clone(), full_name, now.as_millis() as u64, random);
    // The name of a user who leaves something in the drop directory is not believed.
    submission.sender = Some(user);
    match spool::keep(state, &submission) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => drop::leave(state, &submission),
        kept => kept,
    }
}

fn compose(report: &Report<'_>, name: &str, packed: &[u8], recipients: &[String]) -> Vec<u8> {
    let Report { hostname, domain, .. } = report;
    let id = report.id();
    // No line of what follows begins so.
    let boundary = format!("=_tlsrpt_{}", report.day);
    let to = recipients.join(", ");
    let mut text = format!(
        "To: {to}\r\nSubject: Report Domain: {domain} Submitter: {hostname} Report-ID: <{id}>\r\n\
         TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {hostname}\r\nTLS-Required: No\r\n\
         Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain\r\n\r\n\
         This is what became of encryption on the way to {domain}, as {hostname} saw it (RFC 8460).\r\n\
         --{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n"
    );
    let coded = base64(packed);
    for line in coded.as_bytes().chunks(LINE) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push_str("\r\n");
    }
    text.push_str(&format!("--{boundary}--\r\n"));
    text.into_bytes()
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (value >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_everybody_writes_it() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
