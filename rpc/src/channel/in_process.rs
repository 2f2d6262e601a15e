//! The driver of a channel into this process: polls the replies that wait for a disk or a peer, so that they make
//! progress whether or not their callers ask.

use super::core::{Core, InProcess};
use crate::service::Message;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use slice_metrics::clock;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

struct Later {
    key: usize,
    reply: LocalBoxFuture<'static, Message>,
}

impl Future for Later {
    type Output = (usize, Message);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(self.reply.as_mut().poll(cx));
        Poll::Ready((self.key, reply))
    }
}

/// Runs until the channel has ended and everything begun through it too: what has begun is not dropped half-way.
pub(super) async fn drive(core: &Core, place: &InProcess) {
    let mut later = FuturesUnordered::new();
    poll_fn(|cx| {
        clock::tick();
        core.nudge.begin(cx);
        loop {
            later.extend(place.fresh.borrow_mut().drain(..).map(|(key, reply)| Later { key, reply }));
            match later.poll_next_unpin(cx) {
                Poll::Ready(Some((key, reply))) => core.settle(key, Ok(reply)),
                // Delivering and polling may have made new calls.
                _ if !place.fresh.borrow().is_empty() => {}
                _ => break,
            }
        }
        core.nudge.end();
        if core.gone() && later.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
