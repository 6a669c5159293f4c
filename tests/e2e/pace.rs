//! A small HTTP server that sends small writes evenly: `GET /RATE/COUNT/SIZE` answers COUNT writes of SIZE bytes, RATE per second, each a
//! TCP segment of its own. It makes a load of an exact packet rate from both targets at once.

use crate::raw;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The port it listens on.
pub const PORT: u16 = 8080;

/// Starts the server in a target's namespace; its threads end with the test process.
pub fn serve(namespace: &str, target: &'static str) {
    let listener = raw::listen(namespace, PORT);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that a test kills ends in an error here, which is nobody's news.
            std::thread::spawn(move || answer(stream, target));
        }
    });
}

fn answer(mut stream: TcpStream, target: &str) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut request = String::new();
    BufReader::new(stream.try_clone().ok()?).read_line(&mut request).ok()?;
    let numbers: Vec<u32> = request.split(['/', ' ']).filter_map(|n| n.parse().ok()).collect();
    let [rate, count, size] = numbers[..] else {
        return None;
    };
    let length = u64::from(count) * u64::from(size);
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\nServed-By: {target}\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let body = vec![b'x'; size as usize];
    let start = Instant::now();
    for i in 0..count {
        let due = start + Duration::from_secs(1) * i / rate;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        stream.write_all(&body).ok()?;
    }
    Some(())
}
