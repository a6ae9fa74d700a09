// libzstd: .zst files of one or more frames.
#include <zstd.h>

#include <vector>

#include "data/byte_stream.h"

namespace af {
namespace {

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(InputFile& file) : file_(file), bytes_(1 << 18), state_(ZSTD_createDStream()) { AF_CHECK(state_, "zstd does not start"); }
  ~ZstdStream() override { ZSTD_freeDStream(state_); }

  std::size_t read(char* out, std::size_t size) override {
    ZSTD_outBuffer output{out, size, 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size && !more_inside_) {
        input_ = {bytes_.data(), file_.read(bytes_.data(), bytes_.size()), 0};
        if (input_.size == 0 && wanted_ != 0) throw DamagedData("the zstd data end too early");
        if (input_.size == 0) return 0;
      }
      wanted_ = ZSTD_decompressStream(state_, &output, &input_);
      if (ZSTD_isError(wanted_)) throw DamagedData(std::string("the zstd data are damaged: ") + ZSTD_getErrorName(wanted_));
      more_inside_ = output.pos == output.size && wanted_ != 0;  // what did not fit into `out`
    }
    return output.pos;
  }

 private:
  InputFile& file_;
  std::vector<char> bytes_;
  ZSTD_DStream* state_;
  ZSTD_inBuffer input_{};
  std::size_t wanted_ = 1;  // 0: a frame has ended; an empty file is none
  bool more_inside_ = false;
};

}  // namespace

std::unique_ptr<ByteStream> open_zstd(InputFile& file) { return std::make_unique<ZstdStream>(file); }

}  // namespace af
