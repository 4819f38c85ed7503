//! A server that takes everything and keeps every line of the dialogue as it came: SMTP, or LMTP.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What was said to it, by all clients.
pub struct Wire {
    pub address: SocketAddr,
    lines: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Wire {
    /// Listens until the test ends.
    pub fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                // A client may go whenever it likes.
                thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { address, lines }
    }

    /// The command lines that begin with this, in order of the alphabet, with what follows it.
    pub fn said(&self, start: &str) -> Vec<Vec<u8>> {
        let lines = self.lines.lock().expect("whole");
        let mut found: Vec<Vec<u8>> =
            lines.iter().filter_map(|line| line.strip_prefix(start.as_bytes())).map(<[u8]>::to_vec).collect();
        found.sort_unstable();
        found
    }

    /// Panics with the first line that begins with none of these.
    pub fn said_nothing_but(&self, starts: &[&str]) {
        for line in self.lines.lock().expect("whole").iter() {
            let known = starts.iter().any(|start| line.starts_with(start.as_bytes()));
            assert!(known, "{:?}", String::from_utf8_lossy(line));
        }
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
    let (mut recipients, mut is_lmtp, mut in_data) = (0, false, false);
    out.write_all(b"220 wire\r\n")?;
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if in_data {
            if line == b".\r\n" {
                in_data = false;
                let count = if is_lmtp { std::mem::take(&mut recipients) } else { 1 };
                out.write_all("250 2.0.0 kept\r\n".repeat(count).as_bytes())?;
            }
            continue;
        }
        let verb = line.get(..4).unwrap_or(b"").to_ascii_uppercase();
        let reply = match &verb[..] {
            b"LHLO" | b"EHLO" => "250-wire\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n",
            b"DATA" => "354 go on\r\n",
            b"QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        recipients += usize::from(verb == b"RCPT");
        is_lmtp |= verb == b"LHLO";
        in_data = verb == b"DATA";
        kept.lock().expect("whole").push(line);
        out.write_all(reply.as_bytes())?;
    }
}
