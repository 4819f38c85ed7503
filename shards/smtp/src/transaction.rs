//! A mail transaction (RFC 5321 §3.3): reverse-path, forward-paths, and what MAIL declared of the message.
//!
//! Its strings live in the arena of the connection's task; it ends before the arena is reset.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use crate::path::Path;

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
pub(crate) struct Declared {
    pub(crate) size: Option<u64>,
    pub(crate) body: BodyType,
    pub(crate) smtputf8: bool,
}

/// The envelope as far as it was told and accepted.
#[derive(Debug)]
pub struct Transaction<'a> {
    arena: &'a Bump,
    reverse_path: &'a str,
    recipients: ArenaVec<'a, &'a str>,
    asked: Option<&'a str>,
    declared: Declared,
}

impl<'a> Transaction<'a> {
    /// An empty one.
    pub fn new(arena: &'a Bump) -> Self {
        let recipients = ArenaVec::new_in(arena);
        Self { arena, reverse_path: "", recipients, asked: None, declared: Declared::default() }
    }

    pub(crate) fn begin(&mut self, reverse_path: Path<'_>, declared: Declared, hostname: &str) {
        self.reverse_path = self.keep(reverse_path, hostname);
        self.declared = declared;
    }

    /// Keeps a forward-path until it is decided upon.
    pub(crate) fn ask(&mut self, forward_path: Path<'_>, hostname: &str) -> &'a str {
        let kept = self.keep(forward_path, hostname);
        self.asked = Some(kept);
        kept
    }

    pub(crate) fn accept(&mut self) {
        self.recipients.extend(self.asked.take());
    }

    pub(crate) fn refuse(&mut self) {
        self.asked = None;
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

    /// SIZE parameter in bytes (RFC 1870); a promise of the client, not checked.
    pub fn declared_size(&self) -> Option<u64> {
        self.declared.size
    }
}
