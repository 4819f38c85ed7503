//! Numbers from a seed, messages made of them, and sums to compare messages by.

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the clock; print [`Random::seed`] so that a failure can be repeated.
    pub fn fresh() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Self(now.as_nanos() as u64)
    }

    /// What [`Random::new`] makes the same numbers of.
    pub fn seed(&self) -> u64 {
        self.0
    }

    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The header line that our messages begin with. Servers put their own above it, so what follows is ours, whole.
pub const MARK: &str = "X-Test-Key: ";

/// A message of about `bytes` bytes with key `key`: lines of any bytes but CR, LF and NUL, up to 998 long, many with a
/// dot in front.
pub fn message(key: &str, random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut out = format!("{MARK}{key}\r\nSubject: noise\r\n\r\n").into_bytes();
    let end = out.len() + bytes;
    while out.len() < end {
        if random.below(4) == 0 {
            out.extend_from_slice(&b"..."[..random.below(3) as usize + 1]);
        }
        let line = (random.below(999 - 3) as usize).min(end - out.len().min(end));
        let start = out.len();
        while out.len() < start + line {
            out.extend_from_slice(&random.next().to_le_bytes());
        }
        out.truncate(start + line);
        for byte in &mut out[start..] {
            if matches!(*byte, b'\r' | b'\n' | 0) {
                *byte = b'x';
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// FNV-1a over words of eight bytes, then over what is left: quick, and any changed byte shows.
pub fn digest(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut words = bytes.chunks_exact(8);
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for word in &mut words {
        sum = (sum ^ u64::from_le_bytes(word.try_into().expect("eight bytes"))).wrapping_mul(PRIME).rotate_left(29);
    }
    for byte in words.remainder() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    sum ^ bytes.len() as u64
}

/// The part of a received message that the test wrote: from [`MARK`] on. The whole message when it has no mark.
pub fn original(message: &[u8]) -> &[u8] {
    let start = find(message, MARK.as_bytes()).unwrap_or(0);
    &message[start..]
}

/// Where `needle` is, if it is.
pub fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// RFC 5321 §4.5.2, with the final line.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 64 + 8);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line[0] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !message.is_empty() && !message.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// As a file has it: LF alone.
pub fn with_file_line_ends(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        match line {
            [text @ .., b'\r', b'\n'] => {
                out.extend_from_slice(text);
                out.push(b'\n');
            }
            line => out.extend_from_slice(line),
        }
    }
    out
}
