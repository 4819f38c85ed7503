//! Addresses out of a header field (RFC 5322 §3.4), as `sendmail -t` needs them: names, comments and groups are left out,
//! and the old forms that people still write are read, too.

/// The addresses in the value of `To:` and the like. Names without a domain stay as they are.
pub fn of_field(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut one = Mailbox::default();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => skip_comment(&mut chars),
            '"' => quoted(&mut chars, one.part()),
            '<' => one.angle = Some(String::new()),
            '>' => one.closed = true,
            // The hops of a source route (RFC 5322 §4.4) are left out with what follows up to its colon.
            ',' if one.in_route() => {}
            ':' if one.in_route() => one.angle = Some(String::new()),
            ',' | ';' => found.extend(std::mem::take(&mut one).address()),
            // What stood before was the name of a group; in an address literal it is a part of the number.
            ':' if one.angle.is_none() && !one.has_literal() => one = Mailbox::default(),
            c if c.is_ascii_whitespace() => one.blank(),
            c => one.part().push(c),
        }
    }
    found.extend(one.address());
    found
}

#[derive(Default)]
struct Mailbox {
    /// Outside of angle brackets: a name, or the address itself.
    words: Vec<String>,
    angle: Option<String>,
    closed: bool,
}

impl Mailbox {
    fn part(&mut self) -> &mut String {
        match &mut self.angle {
            Some(angle) if !self.closed => angle,
            _ => {
                if self.words.is_empty() {
                    self.words.push(String::new());
                }
                self.words.last_mut().expect("one is there")
            }
        }
    }

    fn in_route(&self) -> bool {
        !self.closed && self.angle.as_ref().is_some_and(|angle| angle.starts_with('@'))
    }

    fn has_literal(&self) -> bool {
        self.words.iter().any(|word| word.contains('['))
    }

    /// Divides words; in angle brackets it means nothing.
    fn blank(&mut self) {
        if self.angle.is_none() {
            self.words.push(String::new());
        }
    }

    fn address(self) -> Option<String> {
        let address = match self.angle {
            Some(angle) => angle,
            None => last_word(self.words),
        };
        (!address.is_empty()).then_some(address)
    }
}

/// The last word is the address. Blanks around dots and the at sign divide none (RFC 5322 §4.4).
fn last_word(words: Vec<String>) -> String {
    let mut last = String::new();
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        if !last.ends_with(['@', '.']) && !word.starts_with(['@', '.']) {
            last.clear();
        }
        last.push_str(&word);
    }
    last
}

/// A quoted string, its quotes kept: in a local part they belong to the address.
fn quoted(chars: &mut std::str::Chars<'_>, out: &mut String) {
    out.push('"');
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '"' => return,
            '\\' => out.extend(chars.next()),
            _ => {}
        }
    }
}

fn skip_comment(chars: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    while depth > 0 {
        match chars.next() {
            None => return,
            Some('(') => depth += 1,
            Some(')') => depth -= 1,
            Some('\\') => drop(chars.next()),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_an_address() {
        for (value, expected) in [
            ("a@x.test", &["a@x.test"][..]),
            (" a@x.test ,\r\n\tb@x.test", &["a@x.test", "b@x.test"]),
            ("Some One <a@x.test>, \"Last, First\" <b@x.test>", &["a@x.test", "b@x.test"]),
            ("a@x.test (a comment, (nested) here)", &["a@x.test"]),
            ("friends: a@x.test, B <b@x.test>; c@x.test", &["a@x.test", "b@x.test", "c@x.test"]),
            ("undisclosed-recipients:;", &[]),
            ("root, gilles", &["root", "gilles"]),
            ("\"a b\"@x.test", &["\"a b\"@x.test"]),
            ("<\"a,b\"@x.test>", &["\"a,b\"@x.test"]),
            ("<@relay.test,@other.test:a@x.test>", &["a@x.test"]),
            ("a @ x . test", &["a@x.test"]),
            ("u@[IPv6:2001:db8::1], v@[192.0.2.1]", &["u@[IPv6:2001:db8::1]", "v@[192.0.2.1]"]),
            ("<u@[IPv6:2001:db8::1]>", &["u@[IPv6:2001:db8::1]"]),
            ("", &[]),
            (",,;", &[]),
            ("<>", &[]),
            ("grüße <ü@x.test>", &["ü@x.test"]),
            ("a@x.test (", &["a@x.test"]),
            ("\"open", &["\"open"]),
        ] {
            assert_eq!(of_field(value), expected, "{value:?}");
        }
    }
}
