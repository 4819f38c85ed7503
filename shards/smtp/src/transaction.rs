//! A mail transaction (RFC 5321 §3.3): reverse-path, forward-paths, and what MAIL declared of the message.
//!
//! Its strings live in the arena of the connection's task; it ends before the arena is reset.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use crate::dsn::{OfMessage, OfRecipient, Ret};
use crate::path::Path;
use crate::release::Release;

/// BODY of MAIL (RFC 6152). BINARYMIME is not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// Not declared or 7BIT.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBit,
}

/// What MAIL declared in its parameters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Declared<'i> {
    pub(crate) size: Option<u64>,
    pub(crate) body: BodyType,
    pub(crate) smtputf8: bool,
    pub(crate) requiretls: bool,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: &'i str,
    pub(crate) release: Option<Release>,
    pub(crate) priority: Option<i8>,
    pub(crate) verp: bool,
}

/// The envelope as far as it was told and accepted.
#[derive(Debug)]
pub struct Transaction<'a> {
    arena: &'a Bump,
    reverse_path: &'a str,
    recipients: ArenaVec<'a, &'a str>,
    /// What RCPT asks to be told, by the place of the recipient; few ask.
    requests: ArenaVec<'a, (u32, OfRecipient<'a>)>,
    asked: Option<(&'a str, OfRecipient<'a>)>,
    declared: Declared<'a>,
}

impl<'a> Transaction<'a> {
    /// An empty one.
    pub fn new(arena: &'a Bump) -> Self {
        let recipients = ArenaVec::new_in(arena);
        let requests = ArenaVec::new_in(arena);
        Self { arena, reverse_path: "", recipients, requests, asked: None, declared: Declared::default() }
    }

    pub(crate) fn begin(&mut self, reverse_path: Path<'_>, declared: Declared<'_>, hostname: &str) {
        self.reverse_path = self.keep(reverse_path, hostname);
        self.declared = Declared { envid: self.keep_text(declared.envid), ..declared };
    }

    /// Keeps a forward-path, and what is asked with it, until it is decided upon.
    pub(crate) fn ask(&mut self, forward_path: Path<'_>, request: OfRecipient<'_>, hostname: &str) -> &'a str {
        let kept = self.keep(forward_path, hostname);
        self.asked = Some((kept, OfRecipient { orcpt: self.keep_text(request.orcpt), ..request }));
        kept
    }

    pub(crate) fn accept(&mut self) {
        let Some((path, request)) = self.asked.take() else { return };
        if !request.is_empty() {
            self.requests.push((self.recipients.len() as u32, request));
        }
        self.recipients.push(path);
    }

    pub(crate) fn refuse(&mut self) {
        self.asked = None;
    }

    fn keep_text(&self, text: &str) -> &'a str {
        if text.is_empty() { "" } else { self.arena.alloc_str(text) }
    }

    fn keep(&self, path: Path<'_>, hostname: &str) -> &'a str {
        match path {
            Path::Null => "",
            Path::Mailbox(mailbox) => self.arena.alloc_str(mailbox),
            Path::Postmaster => bumpalo::format!(in self.arena, "postmaster@{}", hostname).into_bump_str(),
        }
    }

    /// Reverse-path without brackets, empty for `<>`. `<postmaster>` has got the server's host name as its domain.
    pub fn reverse_path(&self) -> &'a str {
        self.reverse_path
    }

    /// Accepted forward-paths in the order of their RCPT, without brackets and source route.
    pub fn recipients(&self) -> &[&'a str] {
        &self.recipients
    }

    /// What is asked with the recipient at this place (RFC 3461).
    pub fn request(&self, recipient: usize) -> OfRecipient<'a> {
        let found = self.requests.binary_search_by_key(&recipient, |(place, _)| *place as usize);
        found.map_or_else(|_| OfRecipient::default(), |at| self.requests[at].1)
    }

    /// RET and ENVID (RFC 3461), XVERP.
    pub fn asked_of_message(&self) -> OfMessage<'a> {
        OfMessage { ret: self.declared.ret, envid: self.declared.envid, verp: self.declared.verp.then_some("") }
    }

    /// BODY parameter.
    pub fn body(&self) -> BodyType {
        self.declared.body
    }

    /// Whether 8-bit data was declared.
    pub fn is_eightbit(&self) -> bool {
        self.declared.body == BodyType::EightBit
    }

    /// SMTPUTF8 parameter (RFC 6531).
    pub fn smtputf8(&self) -> bool {
        self.declared.smtputf8
    }

    /// REQUIRETLS parameter (RFC 8689).
    pub fn requires_tls(&self) -> bool {
        self.declared.requiretls
    }

    /// HOLDFOR or HOLDUNTIL (RFC 4865).
    pub fn release(&self) -> Option<Release> {
        self.declared.release
    }

    /// MT-PRIORITY (RFC 6710), from -9 to 9; 0 where it was not said.
    pub fn priority(&self) -> i8 {
        self.declared.priority.unwrap_or(0)
    }

    /// SIZE parameter in bytes (RFC 1870); a promise of the client, not checked.
    pub fn declared_size(&self) -> Option<u64> {
        self.declared.size
    }
}
