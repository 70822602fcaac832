//! How connections come in: plainly, or by TLS with the certificate of `deploy/local/up --tls`.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection of either kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[derive(Clone)]
pub enum Door {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor),
}

impl Door {
    /// Takes the files of a certificate and its key (PEM), or nothing.
    #[cfg(feature = "tls")]
    pub fn new(files: &[String]) -> Result<Self, String> {
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::pem::PemObject as _;
        use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let [certificate, key] = files else { return Ok(Self::Plain) };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
            .map_err(|error| format!("{certificate}: {error}"))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{key}: {error}"))?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let config = config.map_err(|error| error.to_string())?;
        Ok(Self::Tls(tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))))
    }

    #[cfg(not(feature = "tls"))]
    pub fn new(files: &[String]) -> Result<Self, String> {
        let plain = files.is_empty().then_some(Self::Plain);
        plain.ok_or_else(|| "built without the feature tls".to_owned())
    }

    /// `None`: the client did not shake hands.
    pub async fn let_in(self, stream: TcpStream) -> Option<Box<dyn Io>> {
        match self {
            Self::Plain => Some(Box::new(stream)),
            #[cfg(feature = "tls")]
            Self::Tls(acceptor) => match acceptor.accept(stream).await {
                Ok(stream) => Some(Box::new(stream)),
                Err(error) => {
                    eprintln!("{error}");
                    None
                }
            },
        }
    }
}
