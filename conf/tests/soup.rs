//! Whatever is in a file, reading it ends, and ends with a configuration or with an error that points somewhere. What loads has
//! a canonical form, which prints itself.

mod book;

use std::path::Path;

use book::judge::look_at;
use book::words::{FIXTURES, ODD, WORDS};
use proptest::prelude::*;
use ringpost_conf::{Facts, Memory, Options, load};

fn soup() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        20 => any::<prop::sample::Index>().prop_map(|at| at.get(&WORDS).clone()),
        8 => prop::sample::select(ODD).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let glue = prop::sample::select(&["", " ", " ", " "][..]);
    prop::collection::vec((word, glue), 0..60).prop_map(|words| words.into_iter().map(|(w, g)| w + g).collect())
}

/// A fixture whose words are moved about a little: taken out, doubled, put in another's place.
fn damaged() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..4_u8, any::<prop::sample::Index>());
    (any::<prop::sample::Index>(), prop::collection::vec(change, 1..4)).prop_map(|(which, changes)| {
        let text = &which.get(&FIXTURES[..]).text;
        let mut pieces: Vec<String> = text.split_inclusive(char::is_whitespace).map(str::to_owned).collect();
        for (at, kind, other) in changes {
            let at = at.index(pieces.len());
            match kind {
                0 => drop(pieces.remove(at)),
                1 => pieces.insert(at, pieces[at].clone()),
                2 => pieces[at] = format!("{} ", other.get(&WORDS)),
                _ => {
                    let other = other.index(pieces.len());
                    pieces.swap(at, other);
                }
            }
            if pieces.is_empty() {
                pieces.push(String::new());
            }
        }
        pieces.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_soup_never_panics(text in soup(), included in soup(), data in prop::collection::vec(any::<u8>(), 0..40)) {
        look_at(&text, &included, &data);
    }

    #[test]
    fn damaged_fixtures_never_panic(text in damaged()) {
        look_at(&text, "", b"");
    }

    /// A good file with one piece taken out or put twice: the mistakes that people make.
    #[test]
    fn damaged_files_never_panic(from in 0usize..2_000, length in 0usize..80, twice: bool) {
        let good = include_str!("../../docs/examples/relay.conf");
        let floor = |at: usize| (0..=at.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (floor(from), floor(from + length));
        let middle = if twice { good[from..to].repeat(2) } else { String::new() };
        look_at(&format!("{}{middle}{}", &good[..from], &good[to..]), "", b"");
    }

    #[test]
    fn addresses_are_decided_without_a_panic(recipient: String, sender: String, helo: String) {
        let text = include_str!("../../docs/examples/mx.conf");
        let files = Memory::default().with("c", text);
        let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap();
        let facts = Facts { recipient: &recipient, sender: &sender, helo: &helo, ..Facts::default() };
        config.decide(&facts);
    }
}
