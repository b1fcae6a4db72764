//! A server on this machine that speaks TLS, with a certificate that nobody but itself has signed.

use rcgen::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
};

/// It runs for as long as the process.
pub struct TlsServer {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Who trusts this trusts it. PEM.
    pub certificate: String,
}

impl TlsServer {
    /// Answers whatever it is asked with the same bytes.
    pub fn start(answer: Vec<u8>) -> TlsServer {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let certificate = cert.pem();
        let key = PrivatePkcs8KeyDer::from(signing_key).into();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.into()], key);
        let config = Arc::new(config.expect("a certificate with its key"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                let mut stream = StreamOwned::new(connection, stream);
                // Who does not trust it hangs up.
                if stream.read(&mut [0; 4096]).is_ok() {
                    let _ = stream.write_all(&answer);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        TlsServer { url, certificate }
    }
}
