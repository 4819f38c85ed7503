//! Lower-case copies for lookups, on the stack for every text of legal length.

use crate::limits::FOLDED_BYTES;
use crate::mailbox::{split_address, unquote_local};

/// A lower-case copy of a text. Only texts beyond [`FOLDED_BYTES`] or with non-ASCII letters are put on the heap.
#[derive(Debug)]
pub struct Folded {
    bytes: [u8; FOLDED_BYTES],
    len: usize,
    heap: Option<String>,
}

impl Folded {
    /// Folds `text`.
    pub fn new(text: &str) -> Self {
        Self::joined(&[text])
    }

    /// Folds the pieces, one after the other.
    pub fn joined(pieces: &[&str]) -> Self {
        let mut folded = Self { bytes: [0; FOLDED_BYTES], len: 0, heap: None };
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if len > FOLDED_BYTES || !pieces.iter().all(|piece| piece.is_ascii()) {
            folded.heap = Some(pieces.concat().to_lowercase());
            return folded;
        }
        for piece in pieces {
            let room = &mut folded.bytes[folded.len..folded.len + piece.len()];
            room.copy_from_slice(piece.as_bytes());
            room.make_ascii_lowercase();
            folded.len += piece.len();
        }
        folded
    }

    /// The folded text.
    pub fn as_str(&self) -> &str {
        match &self.heap {
            Some(text) => text,
            None => std::str::from_utf8(&self.bytes[..self.len]).expect("only ASCII is put there"),
        }
    }
}

/// An address folded for lookups: lower case, the local part without quotes.
#[derive(Debug)]
pub struct FoldedAddress {
    text: Folded,
    /// Bytes of the local part; `None` without an `@`.
    local_bytes: Option<usize>,
}

impl FoldedAddress {
    /// Folds `local@domain`, or a lone local part such as `postmaster`.
    pub fn new(address: &str) -> Self {
        let Some((local, domain)) = split_address(address) else {
            return Self { text: Folded::new(&unquote_local(address)), local_bytes: None };
        };
        let text = Folded::joined(&[&unquote_local(local), "@", domain]);
        // Folding non-ASCII letters may change lengths; the domain has no `@`, so the last one is the separator.
        let local_bytes = text.as_str().rfind('@');
        Self { text, local_bytes }
    }

    /// `local@domain`.
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// The local part.
    pub fn local(&self) -> &str {
        &self.as_str()[..self.local_bytes.unwrap_or(self.as_str().len())]
    }

    /// The domain; empty without an `@`.
    pub fn domain(&self) -> &str {
        self.local_bytes.map_or("", |at| &self.as_str()[at + 1..])
    }

    /// Whether there is nothing: the null sender.
    pub fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding() {
        let a = FoldedAddress::new(r#""Gilles"@Example.ORG"#);
        assert_eq!((a.as_str(), a.local(), a.domain()), ("gilles@example.org", "gilles", "example.org"));
        let a = FoldedAddress::new("Postmaster");
        assert_eq!((a.local(), a.domain()), ("postmaster", ""));
        let a = FoldedAddress::new(r#""a@b"@c.org"#);
        assert_eq!((a.local(), a.domain()), ("a@b", "c.org"));
        let a = FoldedAddress::new("JÜRGEN@BÜCHER.example");
        assert_eq!((a.local(), a.domain()), ("jürgen", "bücher.example"));
        assert!(FoldedAddress::new("").is_empty());
        let long = "A".repeat(5000);
        assert_eq!(Folded::new(&long).as_str().len(), 5000);
    }
}
