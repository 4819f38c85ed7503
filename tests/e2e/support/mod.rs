//! What the tests stand on: a server process, a client that says exactly what it is told, a receiving server.

pub mod authority;
pub mod cli;
pub mod client;
pub mod database;
pub mod engine;
pub mod homes;
pub mod mail;
pub mod maildir;
pub mod memory;
pub mod name_server;
pub mod ports;
pub mod rivals;
pub mod secure_sink;
pub mod server;
pub mod signed_zone;
pub mod sink;
pub mod text;
pub mod tls;
pub mod wait;
pub mod web;

pub use client::Client;
pub use server::{Server, Setup};
pub use sink::{Script, Sink};
pub use text::Random;
pub use wait::wait_until;
