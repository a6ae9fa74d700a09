// A Debian package index (deb822: "apt-cache dumpavail", a mirror's Packages files) as statements: each package an entity,
// its fields facts, its description free text.
//
//   relation                                                       value
//   section, maintainer, homepage, version, source, installed_size admin, a name without address, a URL, 1.0-2, a source package, kB
//   depends, pre_depends, recommends, suggests, enhances, provides a package, without the bounds on its version
//   *_any (of the first four)                                      alternatives: "default-mta | mail-transport-agent"
//   tag.FACET (tag.role, tag.implemented-in ...)                   debtags: program, c, ...
//
// The source of all is the package's page, https://packages.debian.org/NAME. A package that cannot be used is a problem:
// no name, one that is none (Debian policy 5.6.1), bytes that are not UTF-8.
#pragma once
#include "data/synthesis/statement_reader.h"

namespace af {

// The declarative statement of a fact: "The package ledmon is in section admin."
std::string debian_statement(std::string_view package, std::string_view relation, std::string_view value);
std::string debian_url(std::string_view package);

class DebianIndexReader : public StatementReader {
 public:
  DebianIndexReader(std::string name, std::string time) : StatementReader(std::move(name)), time_(std::move(time)) {}
  void read(const TextBlock& block, ReadStatements& out) override;

 private:
  struct Field {
    std::string name, value;  // lines that go on are joined with \n
  };
  void add_line(std::string_view line, std::int64_t number, ReadStatements& out);
  void end_package(ReadStatements& out);
  void add_package(std::vector<Statement>& out) const;

  std::string time_;
  std::vector<Field> fields_;  // of the package under way, which may have begun in the block before
  std::int64_t first_line_ = 0;
  std::string problem_;  // of that package; "": none yet
};

}  // namespace af
