//! `[node] metrics`: the metrics over TCP, for those who collect them. Only `GET /metrics`, nothing that changes anything.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Request;
use super::server::{self, StatusError};

/// A TCP port that listens.
#[derive(Debug)]
pub struct MetricsPort(TcpListener);

impl MetricsPort {
    /// Listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StatusError::Metrics`]: the address is another process's, or not ours.
    pub async fn bind(address: SocketAddr) -> Result<MetricsPort, StatusError> {
        let listener = TcpListener::bind(address).await;
        listener.map(MetricsPort).map_err(|error| StatusError::Metrics { address, error })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until the future is dropped. Questions go to `source`.
    pub async fn serve(self, source: mpsc::Sender<Request>) {
        server::answer(server::metrics_router(source), &self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::figures::Overview;
    use crate::status::{Answer, What, channel};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_read_over_tcp_and_nothing_else_is() {
        let port = MetricsPort::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = port.address().unwrap();
        let (queries, mut asked) = channel();
        tokio::spawn(port.serve(queries));
        tokio::spawn(async move {
            while let Some(Request::Query(query)) = asked.recv().await {
                assert_eq!(query.what, What::Overview);
                let _ =
                    query.reply.send(Answer::Overview(Box::new(Overview { sas_left_out: 3, ..Overview::default() })));
            }
        });
        let answer = ask(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("openmetrics-text"), "{answer}");
        assert!(answer.contains("phalanx_sas_left_out 3.0") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(ask(address, "/v1/status").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn an_address_in_use_is_said() {
        let first = MetricsPort::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = MetricsPort::bind(first.address().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("[node] metrics"), "{error}");
    }
}
