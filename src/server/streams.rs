//! Where the streams of an HTTP/2 connection are served.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use hyper::rt::Executor;

use super::connections::Connections;

/// Streams that a shard may have under way beyond those of the quietest before its connections'
/// streams are served there.
const STREAMS_AHEAD: usize = 4;

/// Serves the streams of an HTTP/2 connection on its own shard, where no other thread has to be woken
/// for them, until that has more to do than others: one connection, as of a proxy or a gRPC client,
/// may carry the load of a whole machine.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) connections: Arc<Connections>,
    /// The connection's own.
    pub(super) shard: usize,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let shards = &self.connections.shards;
        let n_streams = |shard: usize| shards[shard].streams.load(Ordering::Relaxed);
        let quietest = (0..shards.len()).min_by_key(|&shard| n_streams(shard));
        let shard = match quietest {
            Some(quietest) if n_streams(self.shard) > n_streams(quietest) + STREAMS_AHEAD => {
                quietest
            }
            _ => self.shard,
        };
        shards[shard].streams.fetch_add(1, Ordering::Relaxed);
        let _place = StreamPlace { connections: Arc::clone(&self.connections), shard };
        drop(shards[shard].runtime.spawn(PlacedStream { stream, _place }));
    }
}

/// A stream's place among those of its shard.
struct StreamPlace {
    connections: Arc<Connections>,
    shard: usize,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.connections.shards[self.shard].streams.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project_lite::pin_project! {
    struct PlacedStream<F> {
        #[pin]
        stream: F,
        _place: StreamPlace,
    }
}

impl<F: Future> Future for PlacedStream<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().stream.poll(cx)
    }
}
