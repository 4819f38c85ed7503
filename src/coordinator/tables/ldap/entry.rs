//! An entry of a search's result (RFC 4511 §4.5.2), read without trust in who sent it.

use ldap3::asn1::{PL, StructureTag};

/// What an entry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub dn: String,
    attributes: Vec<(String, Vec<Value>)>,
}

/// A text, or bytes that are none.
pub type Value = Result<String, ()>;

impl Entry {
    /// `None`: it is not of the form that the protocol gives it.
    pub fn read(tag: StructureTag) -> Option<Self> {
        let mut parts = inner(tag)?.into_iter();
        let dn = String::from_utf8(bytes(parts.next()?)?).ok()?;
        let mut attributes = Vec::new();
        for attribute in inner(parts.next()?)? {
            let mut parts = inner(attribute)?.into_iter();
            let name = String::from_utf8(bytes(parts.next()?)?).ok()?;
            let values =
                inner(parts.next()?)?.into_iter().map(|value| Some(String::from_utf8(bytes(value)?).map_err(|_| ())));
            attributes.push((name, values.collect::<Option<Vec<Value>>>()?));
        }
        Some(Self { dn, attributes })
    }

    /// An attribute's values; upper and lower case of its name are the same.
    pub fn values(&self, name: &str) -> &[Value] {
        let found = self.attributes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(&[], |(_, values)| values)
    }
}

/// Where a reference says that a part of the directory is (RFC 4511 §4.5.3).
pub fn elsewhere(tag: StructureTag) -> String {
    let first = inner(tag).and_then(|urls| bytes(urls.into_iter().next()?));
    first.map_or_else(|| "another server".to_owned(), |url| String::from_utf8_lossy(&url).into_owned())
}

fn inner(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(parts) => Some(parts),
        PL::P(_) => None,
    }
}

fn bytes(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(bytes) => Some(bytes),
        PL::C(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use ldap3::asn1::TagClass;

    use super::*;

    fn octets(bytes: &[u8]) -> StructureTag {
        StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(bytes.to_vec()) }
    }

    fn sequence(parts: Vec<StructureTag>) -> StructureTag {
        StructureTag { class: TagClass::Universal, id: 16, payload: PL::C(parts) }
    }

    #[test]
    fn entries_are_read_and_broken_ones_are_not() {
        let mail = sequence(vec![octets(b"mailDrop"), sequence(vec![octets(b"a"), octets(b"\xff")])]);
        let entry = Entry::read(sequence(vec![octets(b"uid=a"), sequence(vec![mail.clone()])])).unwrap();
        assert_eq!(entry.dn, "uid=a");
        assert_eq!(entry.values("maildrop"), [Ok("a".to_owned()), Err(())]);
        assert!(entry.values("uid").is_empty());
        for broken in [
            octets(b"x"),
            sequence(vec![]),
            sequence(vec![octets(b"uid=a")]),
            sequence(vec![octets(b"\xff"), sequence(vec![])]),
            sequence(vec![octets(b"uid=a"), octets(b"x")]),
            sequence(vec![octets(b"uid=a"), sequence(vec![octets(b"x")])]),
            sequence(vec![octets(b"uid=a"), sequence(vec![sequence(vec![octets(b"n"), octets(b"v")])])]),
            sequence(vec![octets(b"uid=a"), sequence(vec![sequence(vec![octets(b"n"), sequence(vec![mail])])])]),
        ] {
            assert_eq!(Entry::read(broken), None);
        }
    }
}
