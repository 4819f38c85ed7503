//! What files are made of: the words of all fixtures, and marks that tend to go wrong.

use std::sync::LazyLock;

use super::{Fixture, extract};

/// Marks, and things that go wrong; the words of the language are those of the fixtures.
pub const ODD: &[&str] = &[
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\\\n",
    "#",
    "# c\n",
    "# c \\\n",
    "{",
    "}",
    "{",
    "}",
    ",",
    "=",
    "=>",
    "!",
    "<",
    ">",
    "<>",
    "<t>",
    "<u>",
    "include",
    "inc",
    "m",
    "m =",
    "$m",
    "${m}",
    "x${m}y",
    "$",
    "${",
    "\"$m\"",
    "'",
    "\"",
    "\\",
    "(",
    ")",
    "[...]",
    "a#b",
    "\t",
    "\u{feff}",
    "ü",
    "\0",
    "file:d",
    "sqlite:/x",
    "é=",
    "%{rcpt.user[0:3]}",
    "\"%{\"",
    "%u",
    "line-3",
    "# 12\n",
    "# ok W0802\n",
];

/// All of the book.
pub static FIXTURES: LazyLock<Vec<Fixture>> = LazyLock::new(|| extract().0);

/// Every word of every fixture, with what stands before and behind it taken off.
pub static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let words = FIXTURES.iter().flat_map(|fixture| fixture.text.split_whitespace()).map(str::to_owned);
    let mut words: Vec<String> = words.chain(ODD.iter().map(|word| (*word).to_owned())).collect();
    words.sort_unstable();
    words.dedup();
    words
});
