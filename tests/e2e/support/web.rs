//! A web server that says one thing to everybody, encrypted, counts who asks, and keeps what it is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// It runs until it is dropped.
pub struct Web {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What was posted.
#[derive(Clone, Debug)]
pub struct Posted {
    /// First line and fields.
    pub head: String,
    pub body: Vec<u8>,
}

struct Shared {
    closing: AtomicBool,
    asked: AtomicUsize,
    posted: Mutex<Vec<Posted>>,
    /// First line and fields, and the text.
    answer: Mutex<(String, String)>,
}

impl Web {
    /// Answers with this text.
    pub fn open(address: SocketAddr, config: Arc<ServerConfig>, text: &str) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let answer = Mutex::new(("200 OK\r\nContent-Type: text/plain".to_owned(), text.to_owned()));
        let (closing, asked) = (AtomicBool::default(), AtomicUsize::default());
        let shared = Arc::new(Shared { closing, asked, posted: Mutex::default(), answer });
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.closing.load(Ordering::SeqCst) {
                    return;
                }
                // Whatever goes wrong is for the other side to tell.
                let _ = stream.and_then(|stream| serve(stream, config.clone(), &for_thread));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// From now on it says this: first line and fields, and the text.
    pub fn say(&self, head: &str, text: &str) {
        *self.shared.answer.lock().expect("no panic") = (head.to_owned(), text.to_owned());
    }

    /// What was posted so far, to whatever it was answered.
    pub fn posted(&self) -> Vec<Posted> {
        self.shared.posted.lock().expect("no panic").clone()
    }

    /// How often it was asked for the policy.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let connection = ServerConnection::new(config).expect("a good configuration");
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    if request.starts_with("POST ") {
        let length =
            request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a length")];
        stream.read_exact(&mut body)?;
        shared.posted.lock().expect("no panic").push(Posted { head: request, body });
    } else {
        assert!(request.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"), "{request}");
        shared.asked.fetch_add(1, Ordering::SeqCst);
    }
    let (head, text) = shared.answer.lock().expect("no panic").clone();
    let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    let stream = stream.get_mut();
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}
