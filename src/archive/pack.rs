//! What a backup is made of, on its way to the disk and back: compressed in frames, encrypted if wanted, its sum taken in
//! the same pass.

use crate::base::text::encode_hex;
use crate::host::{Ends, Flow, Host};
use anyhow::{Context, Result, anyhow};
use flate2::write::GzEncoder;
use ring::digest;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ChildStdin;
use std::thread::JoinHandle;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{ZSTD_e_continue, ZSTD_e_end};
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, get_error_name};

/// Further levels save little of what is dumped, and take much longer.
const LEVEL: i32 = 2;
/// How much is read at once.
pub(crate) const PIECE: usize = 1 << 18;

/// Counts and sums what goes through it.
#[derive(Debug)]
pub(crate) struct Summed<W> {
    inner: W,
    sum: Sum,
}

/// The sum and the size of something.
#[derive(Clone)]
struct Sum {
    context: digest::Context,
    bytes: u64,
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sum({} bytes)", self.bytes)
    }
}

/// How large something was, and its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedSum {
    /// Its size on the disk.
    pub(crate) bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

impl Sum {
    fn new() -> Sum {
        Sum { context: digest::Context::new(&digest::SHA256), bytes: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn packed(self) -> PackedSum {
        PackedSum { bytes: self.bytes, sha256: encode_hex(self.context.finish().as_ref()) }
    }
}

impl<W: Write> Summed<W> {
    fn new(inner: W) -> Summed<W> {
        Summed { inner, sum: Sum::new() }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The sum of a file that can be read.
pub(crate) fn sum_of(mut file: impl Read) -> io::Result<PackedSum> {
    let mut sum = Sum::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(sum.packed()),
            some => sum.add(&piece[..some]),
        }
    }
}

/// How what is written is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Zstd,
    Gzip,
    None,
}

enum Squeezer {
    Zstd(CCtx<'static>),
    Gzip(GzEncoder<Vec<u8>>),
    None,
}

/// A file of a backup that is being written.
pub(crate) struct Packer<'a> {
    host: &'a Host,
    squeezer: Squeezer,
    buffer: Vec<u8>,
    way: Sink,
    /// How much was given so far.
    pub(crate) given: u64,
    /// How much of the compressed text there is so far.
    pub(crate) packed: u64,
}

enum Sink {
    Plain(Summed<File>),
    Age { age: Flow, input: ChildStdin, writer: JoinHandle<io::Result<Summed<File>>> },
}

impl<'a> Packer<'a> {
    /// Writes to a file by zstd, for the holder of an identity of age only where a recipient is given.
    pub(crate) fn new(host: &'a Host, file: File, recipient: Option<&str>) -> Result<Packer<'a>> {
        Packer::compressing(host, file, recipient, Compression::Zstd)
    }

    /// The same with another compression, whose text has no frames that can be read by themselves.
    pub(crate) fn compressing(
        host: &'a Host,
        file: File,
        recipient: Option<&str>,
        compression: Compression,
    ) -> Result<Packer<'a>> {
        let mut zstd = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::ChecksumFlag(true),
            // In a thread of its own.
            CParameter::NbWorkers(1),
        ] {
            zstd.set_parameter(parameter).map_err(zstd_error)?;
        }
        let way = match recipient {
            None => Sink::Plain(Summed::new(file)),
            Some(recipient) => {
                let age = host.child("age").args(["--encrypt", "--recipient", recipient]);
                let mut age =
                    age.flow(Ends::Both).context("backup.encrypt_to is set, and age encrypts; install its package")?;
                let pipes = age.input.take().zip(age.output.take());
                let (input, mut output) = pipes.context("age has no pipes")?;
                let mut summed = Summed::new(file);
                let writer = std::thread::spawn(move || {
                    io::copy(&mut output, &mut summed)?;
                    Ok(summed)
                });
                Sink::Age { age, input, writer }
            }
        };
        let squeezer = match compression {
            Compression::Zstd => Squeezer::Zstd(zstd),
            Compression::Gzip => Squeezer::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Compression::None => Squeezer::None,
        };
        Ok(Packer { host, squeezer, buffer: Vec::with_capacity(CCtx::out_size()), way, given: 0, packed: 0 })
    }

    fn run(&mut self, bytes: &[u8], directive: ZSTD_EndDirective) -> io::Result<()> {
        match &mut self.squeezer {
            Squeezer::Zstd(_) => return self.run_zstd(bytes, directive),
            Squeezer::Gzip(gzip) => {
                gzip.write_all(bytes)?;
                let squeezed = std::mem::take(gzip.get_mut());
                self.put(&squeezed)?;
            }
            Squeezer::None => self.put(bytes)?,
        }
        self.given += bytes.len() as u64;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.packed += bytes.len() as u64;
        match &mut self.way {
            Sink::Plain(file) => file.write_all(bytes),
            Sink::Age { input, .. } => input.write_all(bytes),
        }
    }

    fn run_zstd(&mut self, bytes: &[u8], directive: ZSTD_EndDirective) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let Squeezer::Zstd(zstd) = &mut self.squeezer else { return Ok(()) };
            let mut output = OutBuffer::around(&mut buffer);
            let left = zstd.compress_stream2(&mut output, &mut input, directive).map_err(zstd_error)?;
            self.put(&buffer)?;
            self.buffer = buffer;
            let is_over = match directive {
                ZSTD_e_continue => input.pos() == bytes.len(),
                _ => left == 0,
            };
            if is_over {
                self.given += bytes.len() as u64;
                return Ok(());
            }
        }
    }

    /// Ends a frame: what follows can be read without what is before it.
    pub(crate) fn end_frame(&mut self) -> io::Result<()> {
        self.run(&[], ZSTD_e_end)
    }

    /// Ends it; from here on it lasts.
    pub(crate) fn finish(mut self) -> Result<PackedSum> {
        let ended = match &mut self.squeezer {
            Squeezer::Gzip(gzip) => {
                let ended = gzip.try_finish();
                let squeezed = std::mem::take(gzip.get_mut());
                ended.and_then(|()| self.put(&squeezed))
            }
            _ => self.end_frame(),
        };
        if let Err(why) = ended {
            return Err(self.cause(why.into()));
        }
        let summed = match self.way {
            Sink::Plain(summed) => summed,
            Sink::Age { age, input, writer } => finish_encrypted(self.host, age, input, writer)?,
        };
        summed.inner.sync_all()?;
        Ok(summed.sum.packed())
    }

    /// Why it could not be written: where age only tells that nobody reads what it writes, who should have read tells more.
    pub(crate) fn cause(self, why: anyhow::Error) -> anyhow::Error {
        match self.way {
            Sink::Plain(_) => why,
            Sink::Age { age, input, writer } => finish_encrypted(self.host, age, input, writer).err().unwrap_or(why),
        }
    }
}

/// Sees how age and who writes down what it gives came to their end: where both failed, the disk was the cause.
fn finish_encrypted(
    host: &Host,
    age: Flow,
    input: ChildStdin,
    writer: JoinHandle<io::Result<Summed<File>>>,
) -> Result<Summed<File>> {
    drop(input);
    let written = writer.join().map_err(|_| anyhow!("can't write"))?;
    let ended = age.end(host);
    let summed = written?;
    ended?;
    Ok(summed)
}

impl Write for Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.run(bytes, ZSTD_e_continue)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

/// Reads what was compressed, of other tools too: as it is, by gzip or by zstd, whatever its first bytes say.
pub(crate) fn unpack_stream<'a>(file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut file = BufReader::with_capacity(PIECE, file);
    let first = io::BufRead::fill_buf(&mut file)?;
    Ok(match first {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(file)?),
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    })
}

/// Whether age has encrypted a file.
pub(crate) fn is_encrypted(file: &File) -> io::Result<bool> {
    const BEGIN: &[u8] = b"age-encryption.org/";
    let mut first = [0; BEGIN.len()];
    let read = file.read_at(&mut first, 0)?;
    Ok(first[..read] == *BEGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn a_frame_can_be_read_without_those_before_it() {
        let host = Host::live().unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut packer = Packer::new(&host, file.try_clone().unwrap(), None).unwrap();
        packer.write_all(&[b'a'; 1 << 20]).unwrap();
        packer.end_frame().unwrap();
        let second = packer.packed;
        packer.write_all(b"second").unwrap();
        let packed = packer.finish().unwrap();
        let read = |from| {
            let mut text = Vec::new();
            (&file).seek(io::SeekFrom::Start(from)).unwrap();
            unpack_stream(&file).unwrap().read_to_end(&mut text).unwrap();
            text
        };
        assert_eq!(read(0).len(), (1 << 20) + 6);
        assert_eq!(read(second), b"second");
        (&file).rewind().unwrap();
        assert_eq!(sum_of(&file).unwrap(), packed);
    }

    #[test]
    fn every_compression_can_be_read_again() {
        let host = Host::live().unwrap();
        for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
            let file = tempfile::tempfile().unwrap();
            let mut packer = Packer::compressing(&host, file.try_clone().unwrap(), None, compression).unwrap();
            packer.write_all(b"first").unwrap();
            packer.end_frame().unwrap();
            packer.write_all(&[b'a'; 1 << 20]).unwrap();
            let packed = packer.finish().unwrap();
            (&file).rewind().unwrap();
            let mut text = String::new();
            unpack_stream(&file).unwrap().read_to_string(&mut text).unwrap();
            assert!(text.len() == (1 << 20) + 5 && text.starts_with("firsta"), "{compression:?}");
            (&file).rewind().unwrap();
            assert_eq!(sum_of(&file).unwrap(), packed);
            assert_eq!(packed.bytes > 1 << 20, compression == Compression::None);
        }
    }

    #[test]
    fn gzip_and_plain_text_are_read() {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"text").unwrap();
        for packed in [gzip.finish().unwrap(), b"text".to_vec()] {
            let mut text = String::new();
            unpack_stream(&packed[..]).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
        }
    }
}
