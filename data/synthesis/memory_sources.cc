#include "data/synthesis/memory_sources.h"

#include "data/synthesis/debian_index.h"
#include "data/synthesis/document_statements.h"
#include "data/synthesis/trajectory_statements.h"
#include "data/synthesis/triple_statements.h"

namespace af {

std::unique_ptr<StatementReader> make_reader(SourceKind kind, const std::string& file, const std::string& time) {
  switch (kind) {
    case SourceKind::documents:
      return std::make_unique<DocumentReader>(file, time);
    case SourceKind::trajectories:
      return std::make_unique<ToolResponseReader>(file, time);
    case SourceKind::triples:
      return std::make_unique<TripleReader>(file, time);
    case SourceKind::debian_index:
      break;
  }
  return std::make_unique<DebianIndexReader>(file, time);
}

}  // namespace af
