//! HTTP for object stores, over hyper and rustls as everywhere else here.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};

/// Time to connect, and for the head of an answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(60);

/// A connection is closed when it was not used for so long.
const IDLE: Duration = Duration::from_secs(30);

/// Makes clients.
#[derive(Debug, Default)]
pub(super) struct Connector;

/// Without TLS where no certificates of authorities are found: whoever asks for it then is told.
#[derive(Debug)]
enum Service {
    Plain(Client<HttpConnector, HttpRequestBody>),
    Tls(Client<HttpsConnector<HttpConnector>, HttpRequestBody>),
}

impl object_store::client::HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(4);
        let service = match HttpsConnectorBuilder::new().with_native_roots() {
            Ok(tls) => {
                connector.enforce_http(false);
                let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
                Service::Tls(builder.build(connector))
            }
            Err(_) => Service::Plain(builder.build(connector)),
        };
        Ok(HttpClient::new(service))
    }
}

impl HttpService for Service {
    fn call<'own, 'future>(
        &'own self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'own: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let exchange = async {
                match self {
                    Self::Plain(client) => client.request(request).await,
                    Self::Tls(client) => client.request(request).await,
                }
            };
            let response = match tokio::time::timeout(ANSWER, exchange).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    let kind = match error.is_connect() {
                        true => HttpErrorKind::Connect,
                        false => HttpErrorKind::Request,
                    };
                    return Err(HttpError::new(kind, error));
                }
                Err(late) => return Err(HttpError::new(HttpErrorKind::Timeout, late)),
            };
            let (head, body) = response.into_parts();
            let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
            Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
        })
    }
}
