//! What a client wants to be told of its message: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT (RFC 3461 §4).
//!
//! xtext is kept and handed on as it came; only a report decodes it.

use crate::command;
use crate::limits::{ENVID_BYTES_MAX, ORCPT_BYTES_MAX};

/// How much of the message a report of failure returns (§4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

impl Ret {
    /// The word, in any case of letters.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.eq_ignore_ascii_case(b"FULL") {
            Some(Self::Full)
        } else if value.eq_ignore_ascii_case(b"HDRS") {
            Some(Self::Headers)
        } else {
            None
        }
    }

    /// The word in MAIL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// When a recipient's fate is reported (§4.1). The default is that nothing was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify(u8);

impl Notify {
    /// Neither success nor failure nor delay.
    pub const NEVER: Self = Self(1);
    /// When it was delivered, or handed on to where this cannot be asked for.
    pub const SUCCESS: Self = Self(2);
    /// When it failed.
    pub const FAILURE: Self = Self(4);
    /// When it takes long.
    pub const DELAY: Self = Self(8);

    const NAMES: [(Self, &'static str); 4] =
        [(Self::NEVER, "NEVER"), (Self::SUCCESS, "SUCCESS"), (Self::FAILURE, "FAILURE"), (Self::DELAY, "DELAY")];

    /// NEVER alone, or a list of the others, each once; in any case of letters.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut all = Self(0);
        for word in value.split(|byte| *byte == b',') {
            let (one, _) = Self::NAMES.into_iter().find(|(_, name)| word.eq_ignore_ascii_case(name.as_bytes()))?;
            if all.0 & one.0 != 0 {
                return None;
            }
            all.0 |= one.0;
        }
        (all == Self::NEVER || all.0 & Self::NEVER.0 == 0).then_some(all)
    }

    /// The client has said something.
    pub fn is_said(self) -> bool {
        self.0 != 0
    }

    /// A report of success is wanted; only where that was said.
    pub fn wants_success(self) -> bool {
        self.0 & Self::SUCCESS.0 != 0
    }

    /// A report of failure is wanted; also where nothing was said.
    pub fn wants_failure(self) -> bool {
        !self.is_said() || self.0 & Self::FAILURE.0 != 0
    }

    /// A notice of delay is wanted; also where nothing was said (§4.1 leaves that to the server).
    pub fn wants_delay(self) -> bool {
        !self.is_said() || self.0 & Self::DELAY.0 != 0
    }

    fn write(self, out: &mut Vec<u8>) {
        let said = Self::NAMES.into_iter().filter(|(one, _)| self.0 & one.0 != 0);
        for (place, (_, name)) in said.enumerate() {
            out.extend_from_slice(if place == 0 { b" NOTIFY=" } else { b"," });
            out.extend_from_slice(name.as_bytes());
        }
    }
}

/// What MAIL asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfMessage<'a> {
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, the client's name for the transaction, in xtext; empty if there is none.
    pub envid: &'a str,
    /// XVERP (Postfix): what comes back of a recipient is to come to an address of its own. The two delimiters of that address;
    /// empty: those of the server.
    pub verp: Option<&'a str>,
}

impl OfMessage<'_> {
    /// Appends the parameters of RFC 3461, a space before each.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if let Some(ret) = self.ret {
            out.extend_from_slice(b" RET=");
            out.extend_from_slice(ret.name().as_bytes());
        }
        if !self.envid.is_empty() {
            out.extend_from_slice(b" ENVID=");
            push_checked(self.envid, out);
        }
    }

    /// Appends XVERP, for a server that offers it.
    pub(crate) fn write_verp(&self, out: &mut Vec<u8>) {
        let Some(delimiters) = self.verp else { return };
        out.extend_from_slice(b" XVERP");
        if !delimiters.is_empty() {
            out.push(b'=');
            push_checked(delimiters, out);
        }
    }
}

/// What RCPT asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfRecipient<'a> {
    /// NOTIFY.
    pub notify: Notify,
    /// ORCPT, whom the sender has written to: type, semicolon, address in xtext; empty if there is none.
    pub orcpt: &'a str,
}

impl<'a> OfRecipient<'a> {
    /// Neither parameter was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends the parameters, a space before each.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.notify.write(out);
        if !self.orcpt.is_empty() {
            out.extend_from_slice(b" ORCPT=");
            push_checked(self.orcpt, out);
        }
    }

    /// The parameters as RCPT has them, to be remembered; empty if there are none.
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8_lossy(&out).trim_start().to_owned()
    }

    /// Reads [`OfRecipient::to_text`]. What is not understood is as if it were not there.
    pub fn parse(text: &'a str) -> Self {
        let mut found = Self::default();
        for word in text.split(' ') {
            match word.split_once('=') {
                Some(("NOTIFY", value)) => found.notify = Notify::parse(value.as_bytes()).unwrap_or_default(),
                Some(("ORCPT", value)) => found.orcpt = value,
                _ => {}
            }
        }
        found
    }

    /// Reads the parameters of a RCPT; `smtputf8`: MAIL came with that.
    ///
    /// # Errors
    /// The reply.
    pub(crate) fn read(parameters: &'a [u8], smtputf8: bool) -> Result<Self, &'static [u8]> {
        use crate::reply::{BAD_NOTIFY, BAD_ORCPT, UNKNOWN_PARAMETER};
        let mut found = Self::default();
        for (key, value) in command::parameters(parameters) {
            if key.eq_ignore_ascii_case(b"NOTIFY") {
                let first = !found.notify.is_said();
                found.notify = value.and_then(Notify::parse).filter(|_| first).ok_or(BAD_NOTIFY)?;
            } else if key.eq_ignore_ascii_case(b"ORCPT") {
                let first = found.orcpt.is_empty();
                found.orcpt = value.and_then(|value| orcpt(value, smtputf8)).filter(|_| first).ok_or(BAD_ORCPT)?;
            } else {
                return Err(UNKNOWN_PARAMETER);
            }
        }
        Ok(found)
    }
}

/// ENVID if it is one: printable ASCII in xtext (§4.4).
pub(crate) fn envid(value: &[u8]) -> Option<&str> {
    (value.len() <= ENVID_BYTES_MAX && is_xtext(value)).then(|| std::str::from_utf8(value).ok()).flatten()
}

/// `type;xtext` if it is (§4.2). Of type `utf-8` it may go beyond ASCII where the whole transaction may (RFC 6533 §3).
fn orcpt(value: &[u8], smtputf8: bool) -> Option<&str> {
    let semicolon = memchr::memchr(b';', value)?;
    let (kind, address) = (&value[..semicolon], &value[semicolon + 1..]);
    let is_kind = !kind.is_empty() && kind.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let text = std::str::from_utf8(value).ok()?;
    let beyond_ascii = smtputf8 && kind.eq_ignore_ascii_case(b"utf-8");
    let is_address = match beyond_ascii && !address.is_ascii() {
        true => text.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '+' | '=')),
        false => is_xtext(address),
    };
    (value.len() <= ORCPT_BYTES_MAX && is_kind && is_address).then_some(text)
}

/// Printable ASCII in xtext, at least one character (§4).
fn is_xtext(text: &[u8]) -> bool {
    !text.is_empty() && decoded(text).is_some()
}

/// What `text` stands for; `None`: no xtext, or not of printable ASCII.
fn decoded(text: &[u8]) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let byte = match first {
            b'+' => {
                let (digits, behind) = behind.split_first_chunk::<2>()?;
                rest = behind;
                hex(digits[0])? << 4 | hex(digits[1])?
            }
            b'=' => return None,
            byte if byte.is_ascii_graphic() => {
                rest = behind;
                *byte
            }
            _ => return None,
        };
        if !byte.is_ascii_graphic() && byte != b' ' {
            return None;
        }
        plain.push(char::from(byte));
    }
    Some(plain)
}

/// Capitals only (§4).
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// What an xtext stands for; what is none stands for itself.
pub fn decode(text: &str) -> String {
    decoded(text.as_bytes()).unwrap_or_else(|| text.to_owned())
}

/// Printable ASCII as xtext. `None`: it is not, or too long for ORCPT or ENVID in any case.
pub fn encode(text: &str) -> Option<String> {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | b' ' => encoded.push_str(&format!("+{byte:02X}")),
            byte if byte.is_ascii_graphic() => encoded.push(char::from(byte)),
            _ => return None,
        }
    }
    (encoded.len() <= ORCPT_BYTES_MAX).then_some(encoded)
}

/// ORCPT for this address. `None`: it has characters beyond ASCII, or is too long.
pub fn orcpt_of(address: &str) -> Option<String> {
    let orcpt = format!("rfc822;{}", encode(address)?);
    (orcpt.len() <= ORCPT_BYTES_MAX).then_some(orcpt)
}

/// A value that was checked when it came in; should it hold a space or a line end all the same, it must not become another.
fn push_checked(value: &str, out: &mut Vec<u8>) {
    out.extend(value.bytes().map(|byte| if byte.is_ascii_control() || byte == b' ' { b'?' } else { byte }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_a_list() {
        let known = |text: &str| Notify::parse(text.as_bytes());
        assert_eq!(known("never"), Some(Notify::NEVER));
        let some = known("SUCCESS,Delay").expect("a list");
        assert!(some.wants_success() && some.wants_delay() && !some.wants_failure());
        let unsaid = Notify::default();
        assert!(!unsaid.wants_success() && unsaid.wants_delay() && unsaid.wants_failure() && !unsaid.is_said());
        let never = Notify::NEVER;
        assert!(!never.wants_success() && !never.wants_delay() && !never.wants_failure());
        for wrong in
            ["", ",", "SUCCESS,", "NEVER,FAILURE", "FAILURE,FAILURE", "ALWAYS", "SUCCESS;DELAY", "SUCCESS DELAY"]
        {
            assert_eq!(known(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn xtext_is_read_and_written() {
        for (text, plain) in [("a@b", "a@b"), ("a+2Bb+3D+20c", "a+b= c"), ("+41", "A")] {
            assert_eq!(decoded(text.as_bytes()).as_deref(), Some(plain));
        }
        assert_eq!(encode("a+b= c").as_deref(), Some("a+2Bb+3D+20c"));
        for wrong in ["a=b", "a+2b", "a+", "a+2", "a b", "a+0D+0Ab", "a+C3", "\u{fc}", "a\x7f"] {
            assert_eq!(decoded(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!((encode("ü"), encode("a\r\nb"), encode(&"x".repeat(501))), (None, None, None));
        assert_eq!(orcpt_of("a+b@c").as_deref(), Some("rfc822;a+2Bb@c"));
    }

    #[test]
    fn original_recipients() {
        let long = format!("rfc822;{}", "x".repeat(493));
        for text in ["rfc822;a@b", "X-400;/c+3Dx/", "utf-8;\\x{FC}@b", &long] {
            assert_eq!(orcpt(text.as_bytes(), false), Some(text));
        }
        let longer = format!("{long}x");
        for wrong in ["a@b", ";a@b", "rfc822;", "rf c;a", "rfc822;a b", "rfc822;a=b", "utf-8;ü@b", "", &longer] {
            assert_eq!(orcpt(wrong.as_bytes(), false), None, "{wrong}");
        }
        assert_eq!(orcpt("utf-8;ü@b".as_bytes(), true), Some("utf-8;ü@b"));
        assert_eq!(orcpt("rfc822;ü@b".as_bytes(), true), None);
        assert_eq!(orcpt(b"utf-8;\xff@b", true), None);
    }

    #[test]
    fn what_is_remembered_reads_back() {
        for text in ["", "NOTIFY=NEVER", "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2Bb@c", "ORCPT=rfc822;a@b"] {
            let read = OfRecipient::read(text.as_bytes(), false).expect(text);
            assert_eq!((read.to_text().as_str(), OfRecipient::parse(text)), (text, read));
        }
        assert_eq!(OfRecipient::parse("NOTIFY=SOMETIMES X=y"), OfRecipient::default());
    }
}
