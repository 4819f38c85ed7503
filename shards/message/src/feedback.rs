//! What comes back about mail that was sent, read on the way: reports of delivery (RFC 3464) and of complaints (ARF, RFC 5965), both
//! in a `multipart/report` (RFC 6522). Fed pieces of a message, cut anywhere.
//!
//! Whoever sends it may write anything. So nothing is believed, every part has a bound, and what exceeds one is cut or left
//! out: the reader keeps some 60 KiB at most, whatever it is fed, and looks at each byte once. Parts in base64 or quoted-printable
//! are decoded line by line (`decode.rs`).

mod decode;

use self::decode::{Decoder, Encoding};
use crate::limits::{
    BOUNDARY_BYTES_MAX, FEEDBACK_ADDRESS_BYTES_MAX, FEEDBACK_FIELD_BYTES_MAX, FEEDBACK_RECIPIENTS_MAX,
    FEEDBACK_TEXT_BYTES_MAX, FEEDBACK_WORD_BYTES_MAX, LINE_BYTES_MAX,
};

/// What a report says. Texts have no control characters, addresses no blanks, quotes and angle brackets; empty where nothing was
/// said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// What has become of recipients.
    Delivery(Delivery),
    /// Somebody does not want what was sent.
    Complaint(Complaint),
}

/// A report of delivery (RFC 3464).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// `Reporting-MTA`: the server that says so.
    pub reporter: String,
    /// `Original-Envelope-Id`: what the sender has called the transaction.
    pub envelope_id: String,
    /// Those whom it is about, at most [`FEEDBACK_RECIPIENTS_MAX`]; at least one.
    pub recipients: Vec<Recipient>,
    /// Recipients beyond those.
    pub more: usize,
    /// `Message-ID` of the message that was sent, without angle brackets.
    pub message_id: String,
}

/// One recipient in a report of delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// `Final-Recipient`: where it failed, or has arrived.
    pub address: String,
    /// `Original-Recipient`: whom the sender has named.
    pub original: String,
    /// `Action`.
    pub action: Option<Action>,
    /// `Status` (RFC 3463).
    pub status: Option<(u8, u16, u16)>,
    /// `Diagnostic-Code`: what the server in question has said.
    pub diagnostic: String,
}

/// What has become of a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Tried on.
    Delayed,
    /// In its mailbox.
    Delivered,
    /// Handed on to where nobody reports.
    Relayed,
    /// Sent on to several.
    Expanded,
}

/// A complaint (RFC 5965).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    /// `Feedback-Type` in lower case: `abuse`, `fraud`, `virus`, `not-spam`, `auth-failure`, `other`.
    pub kind: String,
    /// `User-Agent`: what has made the report.
    pub agent: String,
    /// `Original-Mail-From`: the reverse-path of what was sent.
    pub sender: String,
    /// The first `Original-Rcpt-To`; many reporters keep it to themselves.
    pub recipient: String,
    /// `Source-IP`: where it has come from.
    pub source: String,
    /// The first `Reported-Domain`.
    pub domain: String,
    /// `Message-ID` of the message that was sent, without angle brackets.
    pub message_id: String,
}

/// Reads a message as it streams by.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    place: Place,
    /// The line so far, as much of it as counts.
    line: Vec<u8>,
    /// The field so far, unfolded.
    field: Vec<u8>,
    /// Type and parameters of the message, or of the part.
    content: Vec<u8>,
    /// How the part is written.
    decoder: Decoder,
    /// Two hyphens and the boundary.
    delimiter: Vec<u8>,
    delivery: Option<Delivery>,
    complaint: Option<Complaint>,
    recipient: Recipient,
    message_id: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the message's header.
    #[default]
    Header,
    /// In the header of a part.
    PartHeader,
    /// Among fields about delivery.
    Delivery,
    /// Among fields of a complaint.
    Complaint,
    /// In the header of what was sent.
    Original,
    /// In what is of no interest.
    Elsewhere,
    /// It is no report, or it is over.
    End,
}

impl Reader {
    /// For one message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. Costs nothing once it is known that this is no report.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && self.place != Place::End {
            let end = memchr::memchr(b'\n', piece);
            let line = &piece[..end.unwrap_or(piece.len())];
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&line[..line.len().min(room)]);
            let Some(end) = end else { return };
            piece = &piece[end + 1..];
            let mut line = std::mem::take(&mut self.line);
            self.line(line.strip_suffix(b"\r").unwrap_or(&line));
            line.clear();
            self.line = line;
        }
    }

    /// What it says, now that it is complete. `None`: it is no report.
    pub fn finish(mut self) -> Option<Feedback> {
        if self.place != Place::End && !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.line(&line);
        }
        self.end_of_part();
        let Self { delivery, complaint, message_id, .. } = self;
        match (complaint, delivery.filter(|delivery| !delivery.recipients.is_empty())) {
            (Some(complaint), _) => Some(Feedback::Complaint(Complaint { message_id, ..complaint })),
            (None, Some(delivery)) => Some(Feedback::Delivery(Delivery { message_id, ..delivery })),
            (None, None) => None,
        }
    }

    fn line(&mut self, line: &[u8]) {
        if self.place != Place::Header
            && let Some(behind) = line.strip_prefix(&self.delimiter[..])
        {
            match behind.trim_ascii_end() {
                b"" => return self.part(),
                b"--" => return self.end(),
                // A longer word, which is text.
                _ => {}
            }
        }
        match self.place {
            // What an encoded line stands for is never a boundary.
            Place::Delivery | Place::Complaint | Place::Original if self.decoder.encoding != Encoding::Plain => {
                let mut decoder = std::mem::take(&mut self.decoder);
                decoder.feed(line, |line| self.text_line(line));
                self.decoder = decoder;
            }
            _ => self.text_line(line),
        }
    }

    /// A line of a header or among fields, decoded.
    fn text_line(&mut self, line: &[u8]) {
        match (self.place, line) {
            (Place::Elsewhere | Place::End, _) => {}
            (_, b"") => self.blank(),
            (_, [b' ' | b'\t', ..]) => {
                append(&mut self.field, b" ");
                append(&mut self.field, line.trim_ascii());
            }
            _ => {
                self.end_field();
                append(&mut self.field, line);
            }
        }
    }

    /// A part begins.
    fn part(&mut self) {
        self.end_of_part();
        self.content.clear();
        self.decoder.begin();
        self.place = Place::PartHeader;
    }

    /// No more parts.
    fn end(&mut self) {
        self.end_of_part();
        self.place = Place::End;
    }

    fn end_of_part(&mut self) {
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.end(|line| self.text_line(line));
        self.decoder = decoder;
        self.end_field();
        self.end_recipient();
    }

    /// An empty line: a header, or a group of fields, is over.
    fn blank(&mut self) {
        self.end_field();
        self.place = match self.place {
            Place::Header => self.boundary(),
            Place::PartHeader => self.kind_of_part(),
            Place::Delivery => {
                self.end_recipient();
                Place::Delivery
            }
            // More of them are not defined.
            Place::Complaint | Place::Original | Place::Elsewhere => Place::Elsewhere,
            Place::End => Place::End,
        };
    }

    /// How the parts of the message are divided. What kind of report it is, its parts say best: `report-type` is left out by some.
    fn boundary(&mut self) -> Place {
        let (kind, parameters) = media_type(&self.content);
        let boundary = parameter(parameters, b"boundary").filter(|boundary| !boundary.is_empty());
        match boundary.filter(|boundary| kind == b"multipart/report" && boundary.len() <= BOUNDARY_BYTES_MAX) {
            Some(boundary) => {
                self.delimiter = [b"--", &boundary[..]].concat();
                Place::Elsewhere
            }
            None => Place::End,
        }
    }

    fn kind_of_part(&mut self) -> Place {
        let (kind, _) = media_type(&self.content);
        match &kind[..] {
            b"message/delivery-status" | b"message/global-delivery-status" => {
                self.delivery.get_or_insert_default();
                Place::Delivery
            }
            b"message/feedback-report" => {
                self.complaint.get_or_insert_default();
                Place::Complaint
            }
            b"message/rfc822" | b"text/rfc822-headers" | b"message/global" | b"message/global-headers" => {
                Place::Original
            }
            _ => Place::Elsewhere,
        }
    }

    /// A field is complete.
    fn end_field(&mut self) {
        let mut field = std::mem::take(&mut self.field);
        if let Some(colon) = memchr::memchr(b':', &field) {
            let name = field[..colon].trim_ascii_end().to_ascii_lowercase();
            self.note(&name, field[colon + 1..].trim_ascii());
        }
        field.clear();
        self.field = field;
    }

    fn note(&mut self, name: &[u8], value: &[u8]) {
        match (self.place, name) {
            (Place::Header | Place::PartHeader, b"content-type") => {
                self.content.clear();
                self.content.extend_from_slice(value);
            }
            (Place::PartHeader, b"content-transfer-encoding") => {
                self.decoder.encoding = Encoding::named(&word(value).to_ascii_lowercase());
            }
            (Place::Original, b"message-id") => note(&mut self.message_id, address(value)),
            (Place::Delivery, _) => self.note_delivery(name, value),
            (Place::Complaint, _) => self.note_complaint(name, value),
            _ => {}
        }
    }

    fn note_delivery(&mut self, name: &[u8], value: &[u8]) {
        let Some(delivery) = &mut self.delivery else { return };
        let recipient = &mut self.recipient;
        match name {
            b"reporting-mta" => note(&mut delivery.reporter, address(behind_type(value))),
            b"original-envelope-id" => note(&mut delivery.envelope_id, text(value, FEEDBACK_WORD_BYTES_MAX)),
            b"final-recipient" => note(&mut recipient.address, address(behind_type(value))),
            b"original-recipient" => note(&mut recipient.original, address(behind_type(value))),
            b"action" => recipient.action = recipient.action.or_else(|| action(value)),
            b"status" => recipient.status = recipient.status.or_else(|| status(value)),
            b"diagnostic-code" => note(&mut recipient.diagnostic, text(behind_type(value), FEEDBACK_TEXT_BYTES_MAX)),
            _ => {}
        }
    }

    fn note_complaint(&mut self, name: &[u8], value: &[u8]) {
        let Some(complaint) = &mut self.complaint else { return };
        match name {
            b"feedback-type" => {
                note(&mut complaint.kind, word(value).to_ascii_lowercase());
            }
            b"user-agent" => note(&mut complaint.agent, text(value, FEEDBACK_WORD_BYTES_MAX)),
            b"original-mail-from" => note(&mut complaint.sender, address(value)),
            b"original-rcpt-to" => note(&mut complaint.recipient, address(value)),
            b"source-ip" => note(&mut complaint.source, word(value)),
            b"reported-domain" => note(&mut complaint.domain, address(value)),
            _ => {}
        }
    }

    /// The fields of a recipient are complete, if that is what they were.
    fn end_recipient(&mut self) {
        let recipient = std::mem::take(&mut self.recipient);
        let Some(delivery) = self.delivery.as_mut().filter(|_| !recipient.address.is_empty()) else { return };
        if delivery.recipients.len() < FEEDBACK_RECIPIENTS_MAX {
            delivery.recipients.push(recipient);
        } else {
            delivery.more += 1;
        }
    }
}

/// The first of several counts.
fn note(field: &mut String, value: String) {
    if field.is_empty() {
        *field = value;
    }
}

fn append(field: &mut Vec<u8>, more: &[u8]) {
    let room = FEEDBACK_FIELD_BYTES_MAX.saturating_sub(field.len());
    field.extend_from_slice(&more[..more.len().min(room)]);
}

/// `type; value`: the value. Some leave the type out.
fn behind_type(value: &[u8]) -> &[u8] {
    match memchr::memchr(b';', value) {
        Some(at) => value[at + 1..].trim_ascii(),
        None => value,
    }
}

/// An address, a name or an identifier: its first word, without angle brackets.
fn address(value: &[u8]) -> String {
    let value = value.trim_ascii().strip_prefix(b"<").unwrap_or(value);
    let inner = value.split(|byte| byte.is_ascii_whitespace() || *byte == b'>').next().unwrap_or_default();
    let inner = text(inner, FEEDBACK_ADDRESS_BYTES_MAX);
    let mut clean = String::with_capacity(inner.len());
    clean.extend(inner.chars().map(|c| if matches!(c, '<' | '>' | '"') || c.is_whitespace() { '?' } else { c }));
    clean
}

/// The first word.
fn word(value: &[u8]) -> String {
    let first =
        value.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(')).next().unwrap_or_default();
    text(first, FEEDBACK_WORD_BYTES_MAX)
}

/// As text, with nothing that moves a cursor or ends a line.
fn text(value: &[u8], bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(bytes_max)]);
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        let c = if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c };
        if clean.len() + c.len_utf8() > bytes_max {
            break;
        }
        clean.push(c);
    }
    clean
}

fn action(value: &[u8]) -> Option<Action> {
    Some(match word(value).to_ascii_lowercase().as_str() {
        "failed" => Action::Failed,
        "delayed" => Action::Delayed,
        "delivered" => Action::Delivered,
        "relayed" => Action::Relayed,
        "expanded" => Action::Expanded,
        _ => return None,
    })
}

/// `5.1.1`, also with a comment behind.
fn status(value: &[u8]) -> Option<(u8, u16, u16)> {
    let word = word(value);
    let mut parts = word.split('.');
    let mut part = || parts.next().filter(|part| part.len() <= 3)?.parse::<u16>().ok();
    let (class, subject, detail) = (part()?, part()?, part()?);
    let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
    parts.next().is_none().then_some((class, subject, detail))
}

/// `type/subtype` in lower case, and the parameters (RFC 2045 §5.1).
fn media_type(content: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = memchr::memchr(b';', content).unwrap_or(content.len());
    (content[..end].trim_ascii().to_ascii_lowercase(), &content[end..])
}

/// The value of a parameter, without its quotes. `parameters` begins with a semicolon, if there are any.
fn parameter(mut parameters: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    while let Some(rest) = parameters.strip_prefix(b";") {
        let rest = rest.trim_ascii_start();
        let (value, behind) = quoted_value(rest);
        let equals = memchr::memchr(b'=', &rest[..rest.len() - behind.len()]);
        if equals.is_some_and(|at| rest[..at].trim_ascii_end().eq_ignore_ascii_case(name)) {
            return Some(value);
        }
        parameters = behind;
    }
    None
}

/// What stands behind the first `=` up to the next semicolon outside of quotes; and what follows.
fn quoted_value(parameter: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut value, mut is_value, mut is_quoted, mut is_escaped) = (Vec::new(), false, false, false);
    for (at, byte) in parameter.iter().enumerate() {
        match byte {
            _ if is_escaped => {
                value.push(*byte);
                is_escaped = false;
            }
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b';' if !is_quoted => return (value.trim_ascii().to_vec(), &parameter[at..]),
            b'=' if !is_value => is_value = true,
            _ if is_value => value.push(*byte),
            _ => {}
        }
    }
    (value.trim_ascii().to_vec(), &[])
}

#[cfg(test)]
mod tests;
