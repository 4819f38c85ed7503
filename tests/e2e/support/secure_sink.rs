//! A receiving server that offers encryption, or breaks it, and remembers what was said in clear.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What it does about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Never heard of it.
    Nothing,
    /// STARTTLS.
    StartTls,
    /// Offers STARTTLS and answers 454.
    Refuses,
    /// Offers STARTTLS, and what it then says is no TLS.
    Garbles,
    /// As before, but it hangs up.
    HangsUp,
    /// Says more behind the 220 to STARTTLS.
    Injects,
    /// From the first byte.
    Implicit,
}

/// A MAIL command: its sender, and whether it was encrypted.
pub type Said = (String, bool);

/// It runs until it is dropped.
pub struct SecureSink {
    address: SocketAddr,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    closing: AtomicBool,
    mails: Mutex<Vec<Said>>,
    messages: Mutex<Vec<Said>>,
}

trait Both: Read + Write {}
impl<S: Read + Write> Both for S {}

impl SecureSink {
    pub fn open(address: SocketAddr, offer: Offer, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let seen = Arc::new(Seen::default());
        let for_thread = seen.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.closing.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, config) = (for_thread.clone(), config.clone());
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, offer, config, &seen));
            }
        });
        Self { address, seen, thread: Some(thread) }
    }

    /// Every MAIL command so far.
    pub fn mails(&self) -> Vec<Said> {
        self.seen.mails.lock().expect("no panic").clone()
    }

    /// Every message that was taken: the sender, and whether it came encrypted.
    pub fn messages(&self) -> Vec<Said> {
        self.seen.messages.lock().expect("no panic").clone()
    }
}

impl Drop for SecureSink {
    fn drop(&mut self) {
        self.seen.closing.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, offer: Offer, config: Arc<ServerConfig>, seen: &Seen) {
    // A test that fails does not hang.
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let encrypt = |stream| {
        let connection = ServerConnection::new(config.clone()).expect("a good configuration");
        Box::new(StreamOwned::new(connection, stream)) as Box<dyn Both>
    };
    // Whatever goes wrong is for the other side to tell.
    let _ = match offer {
        Offer::Implicit => talk(encrypt(stream), offer, true, true, seen),
        _ => match talk(Box::new(stream.try_clone().expect("descriptors")), offer, false, true, seen) {
            Ok(true) => talk(encrypt(stream), offer, true, false, seen),
            other => other,
        },
    };
}

/// A dialogue; `true`: a handshake follows.
fn talk(stream: Box<dyn Both>, offer: Offer, encrypted: bool, greet: bool, seen: &Seen) -> std::io::Result<bool> {
    let mut stream = BufReader::new(stream);
    let say = |stream: &mut BufReader<Box<dyn Both>>, text: &str| {
        stream.get_mut().write_all(text.as_bytes())?;
        stream.get_mut().flush()
    };
    if greet {
        say(&mut stream, "220 secure.example\r\n")?;
    }
    let mut sender = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let verb = line.trim_end().to_ascii_uppercase();
        if verb.starts_with("EHLO") {
            let offers = !encrypted && offer != Offer::Nothing;
            say(&mut stream, if offers { "250-secure.example\r\n250 STARTTLS\r\n" } else { "250 secure.example\r\n" })?;
        } else if verb == "STARTTLS" {
            match offer {
                Offer::StartTls => {
                    say(&mut stream, "220 go\r\n")?;
                    assert!(stream.buffer().is_empty(), "nothing may come before the reply");
                    return Ok(true);
                }
                Offer::Garbles => say(&mut stream, "220 go\r\n")?,
                Offer::HangsUp => {
                    say(&mut stream, "220 go\r\n")?;
                    return Ok(false);
                }
                Offer::Injects => say(&mut stream, "220 go\r\n250 slipped in\r\n")?,
                Offer::Refuses | Offer::Nothing | Offer::Implicit => say(&mut stream, "454 4.7.0 not now\r\n")?,
            }
        } else if let Some(rest) = verb.strip_prefix("MAIL FROM:<") {
            sender = rest.split('@').next().unwrap_or_default().to_ascii_lowercase();
            seen.mails.lock().expect("no panic").push((sender.clone(), encrypted));
            say(&mut stream, "250 ok\r\n")?;
        } else if verb == "DATA" {
            say(&mut stream, "354 go\r\n")?;
            loop {
                line.clear();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(false);
                }
                if line == ".\r\n" {
                    break;
                }
            }
            seen.messages.lock().expect("no panic").push((sender.clone(), encrypted));
            say(&mut stream, "250 taken\r\n")?;
        } else if verb == "QUIT" {
            say(&mut stream, "221 bye\r\n")?;
            return Ok(false);
        } else if verb.starts_with("RCPT") || verb == "RSET" {
            say(&mut stream, "250 ok\r\n")?;
        } else {
            say(&mut stream, "500 what\r\n")?;
        }
    }
}
