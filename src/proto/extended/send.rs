//! The sending half of a [`Link`]: what goes out next, described and not copied.

use super::super::duplex::Piece as SeedPiece;
use super::{Link, Piece};
use crate::limits;
use crate::transfer::{Flow, News, RangeRequest, RangeState};
use crate::units::{ByteCount, Generation, Offset, Time};
use crate::wire::checksum::crc32c;
use crate::wire::duplex::{MIDDLE, NIL, SWITCH};
use crate::wire::extended::{Epoch, Frame, Refusal, RequestId, Seq};
use crate::wire::inventory;

impl Link {
    /// What to send next; `None`: nothing now. Small frames come before data, so that they are never long behind it.
    pub fn poll_transmit(&mut self, now: Time, fetch: &mut Flow, serve: &mut Flow) -> Option<Piece> {
        if let Some(object) = self.sent.take() {
            serve.release_range(self.config.id, object, true, now);
        }
        let piece = self.seed_piece().or_else(|| self.small_frame(now, fetch)).or_else(|| self.bulk(now, serve));
        let keepalive = now.since(self.last_out) >= limits::KEEPALIVE_EVERY;
        let piece = piece.or_else(|| keepalive.then_some(Piece::Head(Frame::KeepAlive)))?;
        self.last_out = now;
        Some(piece)
    }

    /// The range last polled cannot be sent, since its bytes cannot be had or have changed: none of it was or will be
    /// sent. The request is refused, and the object not served until it has been looked at again. `why`: what the peer
    /// is told, and what is seen here.
    pub fn handle_source_failed(
        &mut self,
        id: RequestId,
        range: RangeRequest,
        (reason, why): (Refusal, String),
        now: Time,
        serve: &mut Flow,
    ) {
        self.counters.payload_out -= range.length.0;
        if let Some(object) = self.asked.remove(id).map(|asked| asked.object).or(self.sent.take()) {
            serve.release_range(self.config.id, object, false, now);
        }
        self.answers.push_back(Frame::Refused { id, reason });
        if reason == Refusal::Damaged {
            serve.handle_source_unreadable(range.object, range.generation, why, now);
        } else {
            serve.handle_source_failed(range.object, range.generation, why, now);
        }
    }

    /// What was polled lay in so many packets, with so much padding.
    pub fn handle_packed(&mut self, packets: u64, padding: ByteCount) {
        self.counters.packets_out += packets;
        self.counters.padding_out += padding.0;
    }

    /// The last packets in the seed's grammar.
    fn seed_piece(&mut self) -> Option<Piece> {
        if self.greeted && self.switched_out {
            return None;
        }
        let hello = !std::mem::replace(&mut self.greeted, true);
        self.switched_out = !hello;
        let header = if hello { NIL } else { SWITCH };
        self.counters.packets_out += 1;
        self.counters.padding_out += (self.config.packet_len.bytes() - header.len()) as u64;
        Some(Piece::Seed(SeedPiece { header: header.to_vec(), middle: MIDDLE.into(), data: None, hello }))
    }

    fn small_frame(&mut self, now: Time, fetch: &mut Flow) -> Option<Piece> {
        let link = self.config.id;
        while let Some(range) = fetch.poll_cancel(link) {
            let is_it = |order: &RangeRequest| {
                (order.object, order.generation, order.end()) == (range.object, range.generation, range.end())
            };
            let found = self.orders.iter().find(|(_, order)| is_it(order)).map(|(&id, _)| id);
            // Where it is not found all of it is on its way.
            if let Some(id) = found {
                self.orders.remove(&id);
                return Some(Piece::Head(Frame::Cancel { id: RequestId(id) }));
            }
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(Piece::Head(answer));
        }
        if (!self.subscribed || fetch.is_ask_due(link))
            && let Some((epoch, seq)) = fetch.subscription(link, &self.peer.name)
        {
            self.subscribed = true;
            return Some(Piece::Head(Frame::Subscribe { epoch: Epoch(epoch), seq: Seq(seq) }));
        }
        self.request(now, fetch).or_else(|| self.interest(now, fetch))
    }

    /// What there is to tell of interests of ours: that one is over, or a new one.
    fn interest(&mut self, now: Time, fetch: &mut Flow) -> Option<Piece> {
        while let Some(object) = fetch.poll_interest_over(self.config.id) {
            let found = self.interests.iter().find(|(_, known)| **known == object).map(|(&id, _)| id);
            // Where it is not found the peer has answered.
            if let Some(id) = found {
                self.interests.remove(&id);
                return Some(Piece::Head(Frame::Cancel { id: RequestId(id) }));
            }
        }
        let object = fetch.next_interest(self.config.id, now)?;
        let id = RequestId(self.made as u32);
        let (offset, length) = (Offset(0), ByteCount(0));
        let frame = Frame::Request { id, name: fetch.name(object).clone(), offset, length };
        if frame.encoded_len() > self.config.packet_len.bytes() {
            fetch.handle_interest_pending(self.config.id, object);
            return None;
        }
        self.made += 1;
        self.interests.insert(id.0, object);
        Some(Piece::Head(frame))
    }

    /// The first of the peer's interests that can be hoped for no more.
    fn interest_answer(&mut self, now: Time, serve: &mut Flow) -> Option<Piece> {
        let is_over = |object| !matches!(serve.interest_state(object, now), RangeState::Awaited);
        let Some(at) = self.wished.iter().position(|&(_, object)| is_over(object)) else {
            self.stirred = false;
            return None;
        };
        let (id, object) = self.wished.remove(at);
        let is_gone = serve.interest_state(object, now) == RangeState::Gone;
        serve.release_range(self.config.id, object, false, now);
        let gone = Frame::Refused { id, reason: Refusal::Gone };
        Some(Piece::Head(if is_gone { gone } else { Frame::Pending { id } }))
    }

    fn request(&mut self, now: Time, fetch: &mut Flow) -> Option<Piece> {
        let range = fetch.next_range(self.config.id, now)?;
        let id = RequestId(self.made as u32);
        let (offset, length) = (range.offset, range.length);
        let frame = Frame::Request { id, name: fetch.name(range.object).clone(), offset, length };
        if frame.encoded_len() > self.config.packet_len.bytes() {
            fetch.handle_range_pending(self.config.id, range, now);
            return None;
        }
        self.made += 1;
        self.orders.insert(id.0, range);
        Some(Piece::Head(frame))
    }

    /// News and data take turns.
    fn bulk(&mut self, now: Time, serve: &mut Flow) -> Option<Piece> {
        let first = if self.news_last { self.range(now, serve) } else { self.news(serve) };
        let piece = match first {
            Some(piece) => Some(piece),
            None if self.news_last => self.news(serve),
            None => self.range(now, serve),
        }?;
        self.news_last = matches!(piece, Piece::News { .. });
        Some(piece)
    }

    /// The next records of the log that the peer does not know: such whose numbers follow each other. When there is
    /// none, and that is all there is, the peer is told so.
    fn news(&mut self, serve: &mut Flow) -> Option<Piece> {
        let (epoch, from) = self.told?;
        let mut data = Vec::new();
        let mut numbers: Option<(u64, u64)> = None;
        for (seq, news) in serve.news_from(epoch, from) {
            let entry = told(news);
            let follows = numbers.is_none_or(|(_, next)| next == seq);
            let fits = data.is_empty() || data.len() + entry.encoded_len() <= limits::NEWS_BYTES;
            if !follows || !fits {
                break;
            }
            entry.encode(&mut data);
            numbers = Some((numbers.map_or(seq, |(first, _)| first), seq + 1));
        }
        let Some((first, next)) = numbers else { return self.whole(serve) };
        self.told = Some((serve.epoch(), next));
        let (length, crc) = (ByteCount(data.len() as u64), crc32c(&data));
        let frame = Frame::News { epoch: Epoch(serve.epoch()), seq: Seq(first), length, crc };
        Some(Piece::News { frame, data })
    }

    fn whole(&mut self, serve: &Flow) -> Option<Piece> {
        let origin = serve.whole_since(self.unanswered?)?;
        self.unanswered = None;
        let (epoch, seq) = self.told.filter(|&(epoch, _)| epoch == serve.epoch()).unwrap_or((serve.epoch(), 0));
        self.told = Some((epoch, seq));
        Some(Piece::Head(Frame::Whole { epoch: Epoch(epoch), seq: Seq(seq), origin }))
    }

    /// The oldest request that can be answered now, be it in part or by saying that it cannot be.
    fn range(&mut self, now: Time, serve: &mut Flow) -> Option<Piece> {
        let link = self.config.id;
        while let Some(object) = serve.poll_stirred(link) {
            self.asked.stir(object);
            self.stirred = true;
        }
        if now.since(self.looked_at) >= limits::LOOK_AT_ASKED_EVERY {
            self.looked_at = now;
            self.asked.stir_all();
            self.stirred = true;
        }
        if self.stirred
            && let Some(answer) = self.interest_answer(now, serve)
        {
            return Some(answer);
        }
        while let Some(asked) = self.asked.first_stirred() {
            let id = asked.id;
            let is_other = |generation: Generation| asked.generation.is_some_and(|sent| sent != generation);
            let reason = match serve.range_state(asked.object, asked.offset, asked.length, now) {
                RangeState::Awaited => {
                    self.asked.settle_first();
                    continue;
                }
                RangeState::Ready { generation, .. } if is_other(generation) => Some(Refusal::Changed),
                RangeState::Ready { length, generation } => {
                    let in_block = limits::BLOCK_BYTES - asked.offset.0 % limits::BLOCK_BYTES;
                    let length = length.min(ByteCount(in_block));
                    let range = RangeRequest { object: asked.object, generation, offset: asked.offset, length };
                    asked.generation = Some(generation);
                    asked.offset = range.end();
                    asked.length -= length;
                    if asked.length.0 == 0 {
                        self.asked.remove(id);
                        // It is read from what is here after this.
                        self.sent = Some(range.object);
                    }
                    self.counters.payload_out += length.0;
                    return Some(Piece::Range { id, range });
                }
                RangeState::Pending => None,
                RangeState::Damaged => Some(Refusal::Damaged),
                RangeState::Gone => Some(Refusal::Gone),
                RangeState::Invalid => Some(Refusal::Invalid),
            };
            let asked = self.asked.remove(id)?;
            serve.release_range(link, asked.object, asked.generation.is_some(), now);
            return Some(Piece::Head(reason.map_or(Frame::Pending { id }, |reason| Frame::Refused { id, reason })));
        }
        None
    }
}

fn told(news: News<'_>) -> inventory::Entry {
    match news {
        News::Removed(name) => inventory::Entry::Removed { name: name.clone() },
        News::Known(name, content) => inventory::Entry::Object(inventory::Object {
            name: name.clone(),
            size: content.size,
            mtime_ns: content.mtime_ns,
            mode: content.mode,
            root: content.root.0,
            block_crcs: content.block_crcs.clone(),
        }),
    }
}
