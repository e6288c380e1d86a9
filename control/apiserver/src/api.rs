//! One request from start to end: route, identity, authorisation, verb, and every refusal turned into a Status.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::Timestamp;
use parking_lot::Mutex;
use store::{Event, Op, Revision, Txn, TxnError};

use crate::allocate::Allocator;
use crate::auth::rbac::Rbac;
use crate::auth::token::Tokens;
use crate::auth::{Attempt, MASTERS, User, authenticate, node};
use crate::body::{self, Reply};
use crate::definitions::Definitions;
use crate::kubelets::Kubelets;
use crate::metrics::{Asked, Metrics};
use crate::negotiate::{self, Accept, Form};
use crate::object::{Header, Objects, Stored};
use crate::patience::Patience;
use crate::proxy::Backends;
use crate::query::Query;
use crate::resources::{Row, Sub, Table};
use crate::route::{Route, Target};
use crate::status::{Refusal, Result};
use crate::unread::Unread;
use crate::{documents, pretty, verbs};

/// Everything the API server holds.
#[derive(Debug)]
pub struct Api {
    pub objects: Objects,
    /// What is served now.
    pub table: ArcSwap<Table>,
    /// What of this build is served, which all tables begin with.
    pub own: Arc<Table>,
    pub definitions: Definitions,
    pub rbac: Rbac,
    pub tokens: Tokens,
    pub allocator: Allocator,
    pub kubelets: Kubelets,
    /// Pods, and whatever else requests are handed through to.
    pub backends: Backends,
    pub metrics: Metrics,
    /// Set once start-up work is done.
    pub ready: std::sync::atomic::AtomicBool,
    /// Whether the last write to the store was one it could carry out.
    pub store_writes: std::sync::atomic::AtomicBool,
    /// Requests that may be worked on at once; watches and streams do not count.
    pub seats: tokio::sync::Semaphore,
    pub turns: crate::turns::Turns,
    /// Events that watchers were told lately.
    pub told: verbs::told::Told,
    pub patience: Patience,
    /// Begins when the server stops, so that watches end.
    pub stopping: crate::stopping::Stopping,
}

/// A request of which everything but the body has been read.
#[derive(Debug)]
pub struct Incoming {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Unread,
    /// Who is at the other end of the connection.
    pub peer: Peer,
    /// The connection, for requests that leave HTTP.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The identity it has shown as the connection began, if any.
    pub user: Option<User>,
    /// Where it is; nowhere in this process.
    pub address: Option<IpAddr>,
}

/// A request for a resource that is served and that may be answered.
#[derive(Debug)]
pub struct Call {
    pub api: Arc<Api>,
    pub user: User,
    pub row: Arc<Row>,
    pub target: Target,
    pub query: Query,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// Where the client is, if it is not in this process.
    pub from: Option<IpAddr>,
    pub body: Bytes,
    /// The body instead, where it is handed through.
    pub unread: Mutex<Option<Unread>>,
    pub accept: Accept,
    pub warnings: Mutex<Vec<String>>,
    pub upgrade: Mutex<Option<hyper::upgrade::OnUpgrade>>,
}

/// Requests worked on at once; upstream's 400 reading and 200 writing.
pub const SEATS: usize = 600;

/// Where a snapshot of the store is read; nobody but system:masters may unless a role says so.
pub const SNAPSHOT_PATH: &str = "/hawser/snapshot";

impl Api {
    /// Answers a request for `route`.
    pub async fn handle(self: &Arc<Self>, incoming: Incoming, query: Query, route: Route) -> Reply {
        let started = std::time::Instant::now();
        let media = negotiate::of_refusal(&incoming.headers);
        let applies = negotiate::content_type(&incoming.headers) == negotiate::APPLY;
        let asked = Asked::of(&self.table.load(), &incoming.method, &route, &query, applies);
        let held = self.metrics.enter(&asked);
        // Descriptions are large, and no objects.
        let pretty = pretty::is_wanted(&query, &incoming.headers)
            && !asked.is_long()
            && !incoming.uri.path().starts_with("/openapi/");
        let refuse = |refusal: Refusal| {
            if refusal.code >= 500 {
                tracing::warn!(code = refusal.code, message = refusal.message, "refused a request");
            }
            body::refusal(&refusal, media)
        };
        let mut reply = self.answer(incoming, query, route).await.unwrap_or_else(refuse);
        if pretty {
            reply = pretty::laid_out(reply).await.unwrap_or_else(refuse);
        }
        self.metrics.record(&asked, reply.status().as_u16(), started.elapsed());
        if asked.is_long() { reply.map(|body| body::holding(body, held)) } else { reply }
    }

    async fn answer(self: &Arc<Self>, incoming: Incoming, query: Query, route: Route) -> Result<Reply> {
        let user = authenticate::identify(
            incoming.peer.user.as_ref(),
            &incoming.headers,
            &self.tokens,
            &self.objects,
            Timestamp::now(),
        );
        self.metrics.authenticated(user.is_ok());
        let user = user?;
        let user =
            authenticate::impersonate(user, &incoming.headers, |user, attempt| self.allows(user, attempt))?;
        let attempt = Attempt::of(&route, &query);
        if !self.allows(&user, &attempt) {
            return Err(attempt.refusal(&user));
        }
        let target = match route {
            Route::Resource(target) => target,
            Route::Other { verb: "get", path } if path == SNAPSHOT_PATH => return self.snapshot().await,
            Route::Other { path, .. } => return documents::answer(self, &incoming, &path, &query),
        };
        let row = self.table.load().find(&target.group, &target.version, &target.resource).cloned();
        let row = row.ok_or_else(|| documents::absent(&self.own, incoming.uri.path()))?;
        let sub = row.subresource(&target.subresource);
        let streams = sub.is_some_and(Sub::is_stream);
        let accept = if streams { Accept::JSON } else { accept(&incoming.headers, &row, &target)? };
        let (body, unread) = match sub {
            Some(Sub::Proxy) => (Bytes::new(), Some(incoming.body)),
            _ => (incoming.body.read().await?, None),
        };
        let mut call = Call {
            api: Arc::clone(self),
            user,
            row,
            target,
            query,
            method: incoming.method,
            uri: incoming.uri,
            headers: incoming.headers,
            from: incoming.peer.address,
            body,
            unread: Mutex::new(unread),
            accept,
            warnings: Mutex::default(),
            upgrade: Mutex::new(incoming.upgrade),
        };
        let _seat = self.seat(&call, streams)?;
        self.catch_up(&call).await?;
        let mut reply = carry_out(&mut call).await?;
        for warning in call.warnings.into_inner() {
            let text = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                reply.headers_mut().append(http::header::WARNING, value);
            }
        }
        Ok(reply)
    }

    /// Everything the store holds, as one stream; without what only the living say of themselves.
    async fn snapshot(&self) -> Result<Reply> {
        self.newest().await?;
        let pieces = self.objects.snapshot().without(crate::endpoints::LEASES).into_pieces();
        let pieces = futures::stream::iter(pieces.map(Ok));
        Ok(body::reply(200, "application/octet-stream", body::stream(pieces)))
    }

    /// Waits until this server shows what any server confirmed before the call, where the answer has to.
    async fn catch_up(&self, call: &Call) -> Result<()> {
        if matches!(call.target.verb, "get" | "list" | "watch")
            && let Some(asked) = verbs::read::revision(call)?
            && asked <= self.objects.revision()
        {
            return Ok(());
        }
        self.newest().await
    }

    async fn newest(&self) -> Result<()> {
        self.objects.sync().await.map_err(|error| {
            tracing::warn!(%error, "an answer that has to be consistent cannot be given");
            Refusal::new(504, "Timeout", format!("the store cannot be read consistently: {error}"))
                .retry_after(1)
        })
    }

    /// A seat for the time the call is worked on. Administrators always get one: they must be able to help.
    fn seat(&self, call: &Call, streams: bool) -> Result<Option<tokio::sync::SemaphorePermit<'_>>> {
        if streams || call.target.verb == "watch" || call.user.is_in(MASTERS) {
            return Ok(None);
        }
        self.seats.try_acquire().map(Some).map_err(|_full| {
            Refusal::new(429, "TooManyRequests", "Too many requests, please try again later.").retry_after(1)
        })
    }

    /// Whether any authoriser allows the attempt.
    pub fn allows(&self, user: &User, attempt: &Attempt) -> bool {
        let by_role = self.rbac.allows(user, attempt);
        self.metrics.authorised("RBAC", by_role);
        by_role
            || node::node_name(user).is_some_and(|name| {
                let as_node = node::allows(name, attempt, &self.objects);
                self.metrics.authorised("Node", as_node);
                as_node
            })
    }

    /// Carries out a transaction, and remembers whether the store can write at all.
    pub async fn txn(&self, txn: Txn) -> Result<Revision, TxnError<Header>> {
        let (operation, started) = (operation(&txn), std::time::Instant::now());
        let result = self.objects.txn(txn).await;
        self.metrics.stored(operation, started.elapsed());
        let broken = matches!(result, Err(TxnError::Full | TxnError::Engine(_) | TxnError::Unknown));
        self.store_writes.store(!broken, Ordering::Relaxed);
        result
    }

    /// Tells those who keep an index that a key was written, by this server or another.
    pub fn follow(&self, event: &Event<Header>) {
        self.rbac.follow(&event.key, event.entry.as_ref());
        crate::definitions::follow(self, &event.key);
    }
}

/// What a transaction is for, as kube-apiserver's metrics call it: what it does with the object, which comes first.
fn operation(txn: &Txn) -> &'static str {
    match txn.ops.first() {
        Some(Op::Delete { .. }) => "delete",
        Some(Op::Put { key, .. })
            if txn.compares.iter().any(|one| one.key == *key && one.mod_revision == 0) =>
        {
            "create"
        }
        _ => "update",
    }
}

/// Carries out a call; again when the definition of its kind changed meanwhile, which then has to wait for it.
async fn carry_out(call: &mut Call) -> Result<Reply> {
    warn_of_deprecation(call);
    let refusal = match verbs::dispatch(call).await {
        Err(refusal) if refusal.outdated => refusal,
        other => return other,
    };
    tracing::debug!(message = refusal.message, "a request is carried out again");
    let api = Arc::clone(&call.api);
    let _still = api.definitions.hold().await;
    let table = api.table.load_full();
    let row = table.find(&call.target.group, &call.target.version, &call.target.resource);
    call.row = Arc::clone(row.ok_or_else(|| documents::absent(&api.own, call.uri.path()))?);
    call.warnings.lock().clear();
    warn_of_deprecation(call);
    verbs::dispatch(call).await
}

/// The form of the answer: what a custom resource and its status are has none in protobuf, its scale has.
fn accept(headers: &HeaderMap, row: &Row, target: &Target) -> Result<Accept> {
    if row.custom.is_some() && target.subresource != "scale" {
        return Accept::of(headers, Accept::is_served_of_custom);
    }
    // Nobody lists reviews, so that nothing says what their columns are.
    Accept::of(headers, |accept| accept.is_served() && !(row.review && matches!(accept.form, Form::Table(_))))
}

fn warn_of_deprecation(call: &Call) {
    if let Some(deprecation) = &call.row.deprecation {
        call.warn(deprecation.sentence.as_str());
        let sub = call.row.subresource(&call.target.subresource);
        call.api.metrics.uses_deprecated(&call.row, sub.map_or("", |sub| sub.name()), deprecation);
    }
}

impl Call {
    /// Adds a warning the client shows to its user.
    pub fn warn(&self, text: impl Into<String>) {
        let (mut warnings, text) = (self.warnings.lock(), text.into());
        // A write that is tried again is not warned of again; and a header holds no line ends.
        if !warnings.contains(&text) && !text.contains(char::is_control) {
            warnings.push(text);
        }
    }

    /// What the same client would ask for with another target of this row.
    pub fn redirected(&self, row: &Arc<Row>, target: Target) -> Self {
        Self {
            api: Arc::clone(&self.api),
            user: self.user.clone(),
            row: Arc::clone(row),
            target,
            query: self.query.clone(),
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            from: self.from,
            body: self.body.clone(),
            unread: Mutex::default(),
            accept: self.accept,
            warnings: Mutex::default(),
            upgrade: Mutex::new(None),
        }
    }

    /// A call the server makes for itself.
    pub fn internal(api: &Arc<Api>, row: &Arc<Row>, target: Target) -> Self {
        Self {
            api: Arc::clone(api),
            user: User::new("system:apiserver", &[MASTERS]),
            row: Arc::clone(row),
            target,
            query: Query::default(),
            method: Method::DELETE,
            uri: Uri::default(),
            headers: HeaderMap::new(),
            from: None,
            body: Bytes::new(),
            unread: Mutex::default(),
            accept: Accept::JSON,
            warnings: Mutex::default(),
            upgrade: Mutex::new(None),
        }
    }

    /// The key of the object this call is about.
    pub fn key(&self) -> String {
        crate::object::key(&self.row, &self.target.namespace, &self.target.name)
    }

    /// The object this call is about.
    pub fn stored(&self) -> Result<Stored> {
        let found = self.api.objects.get(&self.key());
        found.ok_or_else(|| Refusal::not_found(&self.row, &self.target.name))
    }

    /// Whether nothing is to be written.
    pub fn dry_run(&self) -> bool {
        self.query.all("dryRun").any(|value| value == "All")
    }
}
