//! A connection of ours with a server of rustls, in memory.

use ringpost_tls::Channel;
use rustls::ServerConnection;

/// Shakes hands.
///
/// # Errors
/// Who did not want to, and why.
pub fn shake(mut client: Channel, mut server: ServerConnection) -> Result<(Channel, ServerConnection), String> {
    let (mut to_server, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        client.take_output(&mut to_server);
        let mut wire = &to_server[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        }
        to_server.clear();
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        client.receive(&to_client, &mut plain).map_err(|failure| failure.to_string())?;
    }
    assert!(plain.is_empty() && !client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}
