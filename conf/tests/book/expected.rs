//! What the book says of a fixture: its warnings, or its errors.

use std::collections::BTreeMap;

/// `warn W0811 ×4, W0801 ×3`, as it stands behind a fixture.
pub fn warnings(after: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let words = after.split_once("warn ").map_or("", |(_, words)| words);
    // One sentence, on one line.
    let sentence = words.lines().next().unwrap_or_default();
    let mut last = None;
    for word in sentence.split(['.', ' ', ',', '(', ')']) {
        if word.len() == 5 && word.starts_with("W0") {
            counts.insert(word.to_owned(), 1);
            last = Some(word);
        } else if let (Some(times), Some(code)) = (word.strip_prefix('×'), last) {
            counts.insert(code.to_owned(), times.parse().expect("a number behind ×"));
        }
    }
    counts
}

/// `- `1:15 E0202` `message` help: `text``, as it stands in the book.
pub fn errors(after: &str) -> Vec<String> {
    let lines = after.lines().filter(|line| line.starts_with("- `"));
    lines
        .map(|line| {
            let (head, help) = match line[2..].split_once(" help: ") {
                Some((head, help)) => (head, code_span(help)),
                None => (&line[2..], String::new()),
            };
            let (place, message) = head[1..].split_once('`').expect("place and code are a code span");
            format!("{place} {} = {help}", code_span(message.trim()))
        })
        .collect()
}

/// The text of a Markdown code span, with one or two backticks.
fn code_span(text: &str) -> String {
    let ticks = text.bytes().take_while(|b| *b == b'`').count();
    let inner = &text[ticks..text.len() - ticks];
    if ticks == 2 { inner.trim().to_owned() } else { inner.to_owned() }
}
