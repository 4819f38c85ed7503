//! A message on its way to the server, with all that is known of who sends it: it may travel at once, or be kept in a file
//! first. What depends on the server, its name above all, is filled in when it is spoken to.

use std::io;

use ringpost_message::received::{write_date, write_message_id};
use ringpost_smtp::dsn::{Notify, OfMessage, OfRecipient, Ret};
use serde::{Deserialize, Serialize};

use super::message::{Message, scan};

/// A message and what stands outside of it: the first line of a file in the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Version of this form.
    version: u32,
    /// Envelope sender as given; `None`: the user.
    pub sender: Option<String>,
    /// Number of the user, where that is known for certain: the file was his.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Login name of the user.
    pub user: String,
    /// His full name, or the one that was given.
    pub full_name: String,
    /// Recipients; names without a domain are of the server's.
    pub recipients: Vec<String>,
    /// When it was given to us, milliseconds since 1970.
    pub at_ms: u64,
    /// Makes its message identifier one of a kind.
    pub random: u64,
    /// What the sender wants to be told.
    #[serde(default, skip_serializing_if = "Wishes::is_none")]
    pub wishes: Wishes,
    /// The message with CRLF line ends; after the first line of a file.
    #[serde(skip)]
    pub text: Vec<u8>,
}

/// What a sender wants to be told of his message, as MAIL and RCPT have it (RFC 3461 §4, XVERP); empty where he has not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// NOTIFY, for each recipient.
    pub notify: String,
    /// RET.
    pub ret: String,
    /// ENVID, in xtext.
    pub envelope_id: String,
    /// XVERP: the delimiters, empty for the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verp: Option<String>,
}

impl Wishes {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What MAIL says.
    pub fn of_message(&self) -> OfMessage<'_> {
        OfMessage { ret: Ret::parse(self.ret.as_bytes()), envid: &self.envelope_id, verp: self.verp.as_deref() }
    }

    /// What each RCPT says. The address is the one that the sender has written; ORCPT is the server's to add.
    pub fn of_recipient(&self) -> OfRecipient<'_> {
        OfRecipient { notify: self.notify(), orcpt: "" }
    }

    /// When he wants to be told.
    pub fn notify(&self) -> Notify {
        Notify::parse(self.notify.as_bytes()).unwrap_or_default()
    }
}

/// Made ready for a server of some name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// Reverse-path.
    pub sender: String,
    /// Forward-paths, in the order of [`Submission::recipients`].
    pub recipients: Vec<String>,
    /// The whole text.
    pub text: Vec<u8>,
    /// What the sender wants to be told.
    pub wishes: Wishes,
}

const VERSION: u32 = 1;

impl Submission {
    /// A new one, from the user himself.
    pub fn new(message: Message, user: String, full_name: String, at_ms: u64, random: u64) -> Self {
        Self {
            version: VERSION,
            sender: None,
            uid: None,
            user,
            full_name,
            recipients: message.recipients,
            at_ms,
            random,
            wishes: Wishes::default(),
            text: message.text,
        }
    }

    /// It was found in a file of this user's.
    pub fn is_of(&mut self, uid: u32, user: String) {
        (self.uid, self.user) = (Some(uid), user);
    }

    /// The same for some of its recipients.
    pub fn only_for(&self, recipients: Vec<String>) -> Self {
        Self { recipients, ..self.clone() }
    }

    /// For the server `hostname`: addresses are whole, and fields that must be there are there (RFC 5322 §3.6).
    pub fn compose(&self, hostname: &str) -> Composed {
        let user = whole(&self.user, hostname);
        let sender = match self.sender.as_deref().map(|sender| sender.trim_matches(['<', '>'])) {
            None => user.clone(),
            Some("") => String::new(),
            Some(sender) => whole(sender, hostname),
        };
        let has = scan(&self.text);
        let mut text = Vec::with_capacity(self.text.len() + 256);
        if !has.has_from() {
            let from = if sender.is_empty() { &user } else { &sender };
            text.extend_from_slice(from_field(&self.full_name, from).as_bytes());
        }
        if !has.has_date() {
            write_date(&mut text, self.at_ms);
        }
        if !has.has_message_id() {
            write_message_id(&mut text, &format!("{:x}", self.at_ms), self.random, hostname);
        }
        if !has.starts_with_header() {
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(&self.text);
        let recipients = self.recipients.iter().map(|recipient| whole(recipient, hostname)).collect();
        Composed { sender, recipients, text, wishes: self.wishes.clone() }
    }

    /// As a file.
    ///
    /// # Errors
    /// None that can be named: a line of JSON can always be made.
    pub fn to_file(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.text);
        Ok(bytes)
    }

    /// Out of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_file(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("not a message of ours")?;
        let mut read: Self =
            serde_json::from_slice(&bytes[..end]).map_err(|error| format!("not a message of ours: {error}"))?;
        if read.version != VERSION {
            return Err(format!("of version {}, and this is {VERSION}", read.version));
        }
        read.text = bytes[end + 1..].to_vec();
        Ok(read)
    }
}

/// A name alone is one of the server's.
fn whole(address: &str, hostname: &str) -> String {
    let address = address.trim_matches(['<', '>']);
    if address.contains('@') || address.eq_ignore_ascii_case("postmaster") {
        address.to_owned()
    } else {
        format!("{address}@{hostname}")
    }
}

/// `From:` with the name as a quoted string, or as encoded words if it is not ASCII (RFC 2047). Control characters must not
/// become lines.
fn from_field(full_name: &str, address: &str) -> String {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (name, address) = (clean(full_name), clean(address));
    match name.trim() {
        "" => format!("From: <{address}>\r\n"),
        name if name.is_ascii() => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("From: \"{quoted}\" <{address}>\r\n")
        }
        name => format!("From: {}\r\n <{address}>\r\n", encoded_words(name)),
    }
}

/// Words of at most 75 characters each (RFC 2047 §2), never cut within a character; the first has a name in front.
fn encoded_words(text: &str) -> String {
    const ROOM: usize = 75 - "From: =?utf-8?q??=".len();
    let mut words = vec![String::new()];
    for c in text.chars() {
        let mut bytes = [0; 4];
        let encoded: String = match c {
            ' ' => "_".into(),
            c if c.is_ascii_alphanumeric() => c.into(),
            c => c.encode_utf8(&mut bytes).bytes().map(|byte| format!("={byte:02X}")).collect(),
        };
        if words.last().is_some_and(|word| word.len() + encoded.len() > ROOM) {
            words.push(String::new());
        }
        words.last_mut().expect("one is there").push_str(&encoded);
    }
    words.iter().map(|word| format!("=?utf-8?q?{word}?=")).collect::<Vec<_>>().join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(text: &str) -> Submission {
        let message = Message { text: text.into(), recipients: vec!["root".into(), "a@x.test".into()] };
        Submission::new(message, "gilles".into(), "Gilles \"G\" C".into(), 1_795_609_032_000, 7)
    }

    fn composed(submission: &Submission) -> String {
        String::from_utf8(submission.compose("mx.test").text).unwrap()
    }

    #[test]
    fn what_is_missing_is_added() {
        let made = submission("hello\r\n").compose("mx.test");
        assert_eq!(made.sender, "gilles@mx.test");
        assert_eq!(made.recipients, ["root@mx.test", "a@x.test"]);
        assert_eq!(
            String::from_utf8(made.text).unwrap(),
            "From: \"Gilles \\\"G\\\" C\" <gilles@mx.test>\r\nDate: Wed, 25 Nov 2026 12:17:12 +0000\r\n\
             Message-ID: <1a212a37540.0000000000000007@mx.test>\r\n\r\nhello\r\n"
        );
        let whole = "From: a\r\nDate: b\r\nMessage-ID: c\r\n\r\nx\r\n";
        assert_eq!(composed(&submission(whole)), whole);
        assert!(composed(&submission("Subject: x\r\n\r\ny\r\n")).ends_with("mx.test>\r\nSubject: x\r\n\r\ny\r\n"));
    }

    #[test]
    fn senders() {
        for (given, sender) in [("a@x", "a@x"), ("<a@x>", "a@x"), ("a", "a@mx.test"), ("", ""), ("<>", "")] {
            let one = Submission { sender: Some(given.into()), ..submission("x\r\n") };
            assert_eq!(one.compose("mx.test").sender, sender);
        }
        let null = Submission { sender: Some("<>".into()), full_name: String::new(), ..submission("x\r\n") };
        assert!(composed(&null).starts_with("From: <gilles@mx.test>\r\n"));
    }

    #[test]
    fn names_cannot_break_out_of_their_field() {
        let field = |name: &str| from_field(name, "a@x");
        assert_eq!(field("a\r\nBcc: b"), "From: \"aBcc: b\" <a@x>\r\n");
        assert_eq!(field("Jörg"), "From: =?utf-8?q?J=C3=B6rg?=\r\n <a@x>\r\n");
        let long = field(&"ü".repeat(100));
        assert!(long.lines().all(|line| line.len() <= 76), "{long}");
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let one = Submission { sender: Some(String::new()), ..submission("a\r\n\0\u{ff}\r\n") };
        assert_eq!(Submission::from_file(&one.to_file().unwrap()), Ok(one.clone()));
        assert!(Submission::from_file(b"").is_err() && Submission::from_file(b"{}\nx").is_err());
        let wishes = Wishes { notify: "NEVER".into(), ..Wishes::default() };
        let wishing = Submission { wishes, ..one.clone() };
        assert_eq!(Submission::from_file(&wishing.to_file().unwrap()), Ok(wishing));
        let newer = Submission { version: 2, ..one };
        assert!(Submission::from_file(&newer.to_file().unwrap()).unwrap_err().contains("version 2"));
    }
}
