//! A connection that carries one question at a time, written and read by whoever asks it. On a multiplexed one a question
//! is a message to another task and its answer a message back; here the reader's own task does both.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::resp::{self, Odd, Strings};

/// What a lane's buffers may keep between two questions: room for the answers to 64 reads of 16 KiB. Growing to that anew for
/// each question costs a copy of most of it.
const KEPT: usize = (1 << 20) + (64 << 10);
/// The least room to read into.
const ROOM: usize = 16 << 10;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused it. The lane is as good as before.
    Refused(String),
    /// It was not answered in time.
    TimedOut,
    /// The connection ended, or what came makes no sense.
    Broken,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl From<Odd> for Failure {
    fn from(odd: Odd) -> Self {
        match odd {
            Odd::Refused(why) => Self::Refused(why),
            Odd::Garbled => Self::Broken,
        }
    }
}

/// A connection for one question at a time. After a failure other than a refusal, or a question whose future was dropped,
/// it must not be used again.
#[derive(Debug)]
pub(super) struct Lane {
    stream: TcpStream,
    output: Vec<u8>,
    input: BytesMut,
    answer: Strings,
    timer: Timer,
}

impl Lane {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            output: Vec::new(),
            input: BytesMut::with_capacity(ROOM * 2),
            answer: Strings::default(),
            timer: Timer(None),
        }
    }

    /// Asks for so many strings. They are [`got`](Self::got) until the next question.
    pub(super) async fn ask(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        strings: usize,
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.forget();
        write(&mut self.output);
        let Self {
            stream,
            output,
            input,
            answer,
            timer,
        } = self;
        let exchange = pin!(exchange(stream, output, input, |input| {
            answer.is_whole(input, strings)
        }));
        timer.limit(exchange, deadline).await
    }

    /// Has the server do something that it answers with a word.
    pub(super) async fn tell(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.forget();
        write(&mut self.output);
        let exchange = pin!(exchange(
            &mut self.stream,
            &self.output,
            &mut self.input,
            resp::is_well
        ));
        self.timer.limit(exchange, deadline).await
    }

    /// A string of the last answer.
    pub(super) fn got(&self, place: usize) -> Option<&[u8]> {
        self.answer.get(&self.input, place)
    }

    fn forget(&mut self) {
        if self.input.capacity() > KEPT {
            self.input = BytesMut::with_capacity(ROOM * 2);
        }
        if self.output.capacity() > KEPT {
            self.output = Vec::new();
        }
        self.input.clear();
        self.output.clear();
        self.answer.clear();
    }
}

async fn exchange(
    stream: &mut TcpStream,
    output: &[u8],
    input: &mut BytesMut,
    mut is_whole: impl FnMut(&[u8]) -> Result<bool, Odd>,
) -> Result<(), Failure> {
    stream.write_all(output).await?;
    loop {
        input.reserve(ROOM);
        if stream.read_buf(input).await? == 0 {
            return Err(Failure::Broken);
        }
        if is_whole(input)? {
            return Ok(());
        }
    }
}

/// The one timer of a lane. It is not set anew for each question: it goes off at the time of an earlier one, at most once
/// in as long as a question may take, and only then is set to the present one's.
#[derive(Debug)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    async fn limit(
        &mut self,
        mut exchange: Pin<&mut impl Future<Output = Result<(), Failure>>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        poll_fn(|context| {
            if let Poll::Ready(done) = exchange.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            ready!(self.poll(context, deadline));
            Poll::Ready(Err(Failure::TimedOut))
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
