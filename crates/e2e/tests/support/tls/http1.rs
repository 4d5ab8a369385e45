//! The HTTP/1.1 side of an upstream.

use std::io::{self, Read, Write};

use super::upstream::Shared;

const MAX_HEADERS: usize = 128;

/// Answers requests until the connection ends. A request is read to its end first: an answer
/// before that would close the connection, and nothing would be pooled.
pub(super) fn serve(mut stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let Some((head, length)) = read_head(&mut stream, &mut unread)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&unread[..head]).into_owned();
        unread.drain(..head);
        match length {
            Length::Known(length) => {
                take(&mut stream, &mut unread, length)?;
            }
            Length::Chunked => read_chunks(&mut stream, &mut unread)?,
        }
        let status = shared.answer(&text);
        let head = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        stream.write_all(&[head.as_bytes(), text.as_bytes()].concat())?;
        stream.flush()?;
    }
}

enum Length {
    Known(usize),
    Chunked,
}

/// The length of a request's head and what its body is; nothing at the end of the connection.
fn read_head(stream: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<Option<(usize, Length)>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = request.parse(unread).map_err(invalid)? {
            let mut length = Length::Known(0);
            for header in request.headers.iter() {
                let value = String::from_utf8_lossy(header.value);
                match header.name.to_ascii_lowercase().as_str() {
                    "content-length" => length = Length::Known(value.parse().map_err(invalid)?),
                    "transfer-encoding" => length = Length::Chunked,
                    _ => {}
                }
            }
            return Ok(Some((head, length)));
        }
        if more(stream, unread)? == 0 {
            return Ok(None);
        }
    }
}

fn read_chunks(stream: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match httparse::parse_chunk_size(unread).map_err(|_| invalid("chunk size"))? {
            httparse::Status::Partial if more(stream, unread)? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            httparse::Status::Partial => {}
            httparse::Status::Complete((line, size)) => {
                let size = usize::try_from(size).map_err(invalid)?;
                take(stream, unread, line + size)?;
                if size == 0 {
                    return read_trailers(stream, unread);
                }
                take(stream, unread, 2)?; // the line end after the chunk
            }
        }
    }
}

/// Reads lines up to an empty one.
fn read_trailers(stream: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = unread.windows(2).position(|end| end == b"\r\n");
        match line {
            Some(0) => return take(stream, unread, 2).map(|_| ()),
            Some(len) => _ = take(stream, unread, len + 2)?,
            None if more(stream, unread)? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

fn take(stream: &mut impl Read, unread: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while unread.len() < length {
        if more(stream, unread)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(unread.drain(..length).collect())
}

fn more(stream: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let count = stream.read(&mut chunk)?;
    unread.extend_from_slice(&chunk[..count]);
    Ok(count)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
