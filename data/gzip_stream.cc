// zlib: .gz files of one or more members.
#include <zlib.h>

#include <vector>

#include "data/byte_stream.h"

namespace af {
namespace {

class GzipStream : public ByteStream {
 public:
  explicit GzipStream(InputFile& file) : file_(file), input_(1 << 18) {
    AF_CHECK(inflateInit2(&state_, 15 + 16) == Z_OK, "zlib does not start");  // 15: the largest window; 16: gzip headers
  }
  ~GzipStream() override { inflateEnd(&state_); }

  std::size_t read(char* out, std::size_t size) override {
    state_.next_out = reinterpret_cast<Bytef*>(out);
    state_.avail_out = uInt(size);
    while (state_.avail_out == size) {
      if (state_.avail_in == 0) {
        state_.next_in = reinterpret_cast<Bytef*>(input_.data());
        state_.avail_in = uInt(file_.read(input_.data(), input_.size()));
        if (state_.avail_in == 0 && inside_) throw DamagedData("the gzip data end too early");
        if (state_.avail_in == 0) return 0;
      }
      if (ended_) {  // and there is more: the next member, if it is one
        inflateReset(&state_);
        ended_ = false;
      }
      inside_ = true;
      int status = inflate(&state_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        ended_ = true, inside_ = false;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        throw DamagedData(std::string("the gzip data are damaged: ") + (state_.msg ? state_.msg : "unknown reason"));
      }
    }
    return size - state_.avail_out;
  }

 private:
  InputFile& file_;
  std::vector<char> input_;
  z_stream state_{};
  bool inside_ = true, ended_ = false;  // a member; an empty file is none
};

}  // namespace

std::unique_ptr<ByteStream> open_gzip(InputFile& file) { return std::make_unique<GzipStream>(file); }

}  // namespace af
