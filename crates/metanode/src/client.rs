//! The running service as seen from a command: HTTP with a bearer token, deadlines, and failures that say what to do.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::Global;
use crate::config::Config;
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::home::Home;
use crate::secret;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of the service within an answer; waiting for it to settle asks for more.
const SILENCE: Duration = Duration::from_mins(2);

/// Longest silence of a service that reads its whole ledger before it answers.
const WORK: Duration = Duration::from_hours(6);

fn http(silence: Duration) -> Outcome<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.connect_timeout(CONNECT).read_timeout(silence).build().explain(|| "cannot set up HTTP".to_owned())
}

/// Which key a command acts with when nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Looks at the deployment: `operator.token`.
    Operator,
    /// Works with blobs: `client.token`, confined to the tenant `default`.
    Tenant,
}

/// A service and a key.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
}

/// RFC 9457, as far as a command looks at it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: String,
    code: String,
    request_id: String,
    retryable: bool,
}

impl Client {
    /// For the flags of a command.
    pub(crate) fn connect(global: &Global, role: Role) -> Outcome<Self> {
        let home = Home::find(global.home.as_deref(), global.config.as_deref())?;
        let base = if let Some(url) = &global.url {
            url.clone()
        } else {
            let address = Config::load(home.config())?.service.address();
            // A service that listens everywhere is reached over the loopback.
            let address = if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() };
            format!("http://{address}")
        };
        Self::new(&base, token(global, &home, role)?)
    }

    /// For a known address and token.
    pub(crate) fn new(base: &str, token: String) -> Outcome<Self> {
        let base = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        let base =
            base.ok_or_else(|| Failure::usage("the service's URL does not parse").hint("for example --url http://127.0.0.1:9090"))?;
        Ok(Self { http: http(SILENCE)?, base, token })
    }

    /// For an answer that takes the service long to work out.
    pub(crate) fn patient(self) -> Outcome<Self> {
        Ok(Self { http: http(WORK)?, ..self })
    }

    /// Base URL without a slash at the end.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to `path`, which is escaped already.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base())).bearer_auth(&self.token)
    }

    /// Sends it; a refusal becomes a failure.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Outcome<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Sends it and reads the JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Outcome<T> {
        let response = self.send(request).await?;
        response.json().await.map_err(|error| self.unreachable(&error))
    }

    /// GET of a JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        self.json(self.request(Method::GET, path)).await
    }

    /// What it means that no answer came.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).last();
        let cause = cause.map_or_else(String::new, ToString::to_string);
        let failure = Failure::new(Exit::Unavailable, format!("the service at {} does not answer: {cause}", self.base()));
        if error.is_connect() {
            failure.hint("metanode storage distributed start runs it").hint("--url or DIASPORE_URL says where it is")
        } else {
            failure
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// The failure behind an answer that is none of success.
pub(crate) async fn refusal(response: Response) -> Failure {
    let status = response.status();
    let problem: Problem = response.json().await.unwrap_or_default();
    let exit = match (status, problem.code.as_str()) {
        (_, "integrity_violation") => Exit::Integrity,
        (_, "refused_state") => Exit::Refused,
        // In flight is an earlier try of the same put whose outcome is still open.
        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::GATEWAY_TIMEOUT, _)
        | (_, "idempotency_in_flight") => Exit::Unavailable,
        _ => Exit::Failure,
    };
    let detail = if problem.detail.is_empty() { format!("the service answered {status}") } else { problem.detail };
    let mut failure = Failure::new(exit, detail);
    match status {
        StatusCode::UNAUTHORIZED => {
            failure = failure.hint("--token-file FILE or DIASPORE_TOKEN gives an API key; metanode keys create makes one");
        }
        StatusCode::FORBIDDEN => failure = failure.hint("metanode keys list shows what each key may do"),
        _ if matches!(problem.code.as_str(), "outcome_unknown" | "idempotency_in_flight") => {
            failure = failure.hint("providers were silent while it was on its way: metanode blob stat shows later whether it came to be");
        }
        _ if problem.retryable => failure = failure.hint("the same command may succeed later without any change"),
        _ => {}
    }
    if status.is_server_error() && !problem.request_id.is_empty() {
        failure = failure.hint(format!("the service's log has more under request {}", problem.request_id));
    }
    failure
}

/// True when the failure came from a request that may be sent again as it is.
pub(crate) fn may_retry(failure: &Failure) -> bool {
    failure.exit == Exit::Unavailable
}

fn token(global: &Global, home: &Home, role: Role) -> Outcome<String> {
    let path = match (&global.token_file, std::env::var_os("DIASPORE_TOKEN")) {
        (Some(path), _) => path.clone(),
        (None, Some(token)) => {
            return token.into_string().map(|token| token.trim().to_owned()).map_err(|_| Failure::usage("DIASPORE_TOKEN is no text"));
        }
        (None, None) => match role {
            Role::Operator => home.operator_token(),
            Role::Tenant => home.client_token(),
        },
    };
    if !path.exists() {
        return Err(Failure::usage(format!("there is no API key at {}", path.display()))
            .hint("the first start of the service writes operator.token and client.token into the home folder")
            .hint("elsewhere: --token-file FILE or DIASPORE_TOKEN; metanode keys create makes a key"));
    }
    let bytes = secret::read_private(&path)?;
    let text = std::str::from_utf8(&bytes).explain(|| format!("{} is no text", path.display()))?;
    Ok(text.trim().to_owned())
}
