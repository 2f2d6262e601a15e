//! The futures of calls.

use super::Channel;
use crate::error::CallError;
use crate::service::Message;
use bytes::BytesMut;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The reply to a call, as one record.
#[must_use = "the call is made, but its reply is lost"]
pub struct Call(SplitCall);

/// The reply to a call, in the parts in which it was made.
#[must_use = "the call is made, but its reply is lost"]
pub struct SplitCall(State);

enum State {
    Ready(Result<Message, CallError>),
    Waiting { channel: Channel, key: usize },
    Over,
}

// === impl SplitCall ===

impl SplitCall {
    pub(super) fn failed(error: CallError) -> Self {
        Self(State::Ready(Err(error)))
    }

    pub(super) fn answered(reply: Message) -> Self {
        Self(State::Ready(Ok(reply)))
    }

    pub(super) fn waiting(channel: Channel, key: usize) -> Self {
        Self(State::Waiting { channel, key })
    }

    pub(super) fn whole(self) -> Call {
        Call(self)
    }
}

impl Future for SplitCall {
    type Output = Result<Message, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = match std::mem::replace(&mut self.0, State::Over) {
            State::Ready(reply) => reply,
            State::Waiting { channel, key } => {
                let polled = channel.0.core.slots.borrow_mut().poll(key, cx.waker());
                match polled {
                    Ok(reply) => reply,
                    Err(_replaced) => {
                        self.0 = State::Waiting { channel, key };
                        return Poll::Pending;
                    }
                }
            }
            // Asked again after its end, which futures may answer as they like.
            State::Over => Err(CallError::Gone),
        };
        Poll::Ready(reply)
    }
}

impl Drop for SplitCall {
    fn drop(&mut self) {
        if let State::Waiting { channel, key } = &self.0 {
            let forgotten = channel.0.core.slots.borrow_mut().forget(*key);
            drop(forgotten); // after the borrow: it may be the last handle of something that holds a call itself
        }
    }
}

// === impl Call ===

impl Future for Call {
    type Output = Result<BytesMut, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(reply.map(Message::into_record))
    }
}
