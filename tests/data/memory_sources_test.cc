// What is read from each kind of file, and the world that answers from it.
#include "data/synthesis/memory_sources.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "core/error.h"
#include "data/synthesis/debian_index.h"
#include "data/synthesis/document_statements.h"
#include "data/synthesis/teacher_statements.h"
#include "data/synthesis/world.h"
#include "tests/data/scripted_teacher.h"

namespace af {
namespace {

// The text in blocks that end after the given lines.
ReadStatements read(SourceKind kind, const std::string& text, const std::set<int>& cuts = {}) {
  const std::unique_ptr<StatementReader> reader = make_reader(kind, "f", "2025");
  ReadStatements out;
  TextBlock block;
  std::int64_t line = 1;
  for (std::size_t at = 0; at < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    block.text += text.substr(at, end - at), ++block.lines;
    at = end;
    block.last = at >= text.size();
    if (!block.last && !cuts.contains(int(line))) continue;
    reader->read(block, out);
    block = {}, block.first_line = line + 1;
  }
  return out;
}

std::vector<std::string> said(const ReadStatements& found) {
  std::vector<std::string> out;
  for (const Statement& s : found.statements) out.push_back(s.entity + "|" + s.text + "|" + s.relation + "|" + s.value);
  return out;
}
std::string complaints(const ReadStatements& found) {
  std::string out;
  for (const LineProblem& problem : found.problems) out += problem.what + "\n";
  return out;
}

const std::string kIndex =
    "Package: ledmon\nVersion: 0.95-2\nInstalled-Size: 222\nMaintainer: Jane Roe <jane@example.org>\n"
    "Depends: libc6 (>= 2.34), libudev1:any,\n libpci3 [amd64], exim4 | mail-transport-agent\nDescription: LED utilities\n They blink.\n .\n"
    " They also\n shine.\nTag: role::program, admin::hardware\nSection: admin\n\n\n"
    "Package: b2\nDescription: no full stop.\n";

TEST(DebianIndex, FieldsBecomeFacts) {
  const ReadStatements found = read(SourceKind::debian_index, kIndex);
  EXPECT_EQ(complaints(found), "");
  const std::vector<std::string> expected{"ledmon|The package ledmon is described as: LED utilities.||",
                                          "ledmon|The package ledmon is in section admin.|section|admin",
                                          "ledmon|The package ledmon is maintained by Jane Roe.|maintainer|Jane Roe",
                                          "ledmon|The version of ledmon is 0.95-2.|version|0.95-2",
                                          "ledmon|The installed size of ledmon is 222 kB.|installed_size|222",
                                          "ledmon|ledmon depends on libc6.|depends|libc6",
                                          "ledmon|ledmon depends on libudev1.|depends|libudev1",
                                          "ledmon|ledmon depends on libpci3.|depends|libpci3",
                                          "ledmon|ledmon depends on one of: exim4 | mail-transport-agent.|depends_any|exim4 | mail-transport-agent",
                                          "ledmon|The role of ledmon is program.|tag.role|program",
                                          "ledmon|ledmon has the tag admin::hardware.|tag.admin|hardware",
                                          "ledmon|They blink.||",
                                          "ledmon|They also shine.||",
                                          "b2|The package b2 is described as: no full stop.||"};
  EXPECT_EQ(said(found), expected);
  for (const Statement& s : found.statements) {
    EXPECT_EQ(s.source, debian_url(s.entity));
    EXPECT_TRUE(s.own_page);
    EXPECT_EQ(s.time, "2025");
  }
}

TEST(DebianIndex, WhereBlocksEndDoesNotMatter) {
  const ReadStatements whole = read(SourceKind::debian_index, kIndex);
  for (int cut = 1; cut < 17; ++cut) EXPECT_EQ(read(SourceKind::debian_index, kIndex, {cut}).statements, whole.statements) << "after line " << cut;
  EXPECT_EQ(read(SourceKind::debian_index, kIndex, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}).statements, whole.statements);
}

TEST(DebianIndex, PackagesThatCannotBeUsed) {
  const std::string good = "Package: good\nSection: x\n\n";
  const ReadStatements found = read(SourceKind::debian_index, good + "Section: x\n\n" + "Package: \xff\xfe\n\n" + "no colon here\nPackage: c1\n\n" +
                                                                  " first goes on\n\n" + "Package: a b<|im_end|>\n\n" + good);
  EXPECT_EQ(said(found),
            (std::vector<std::string>{"good|The package good is in section x.|section|x", "good|The package good is in section x.|section|x"}));
  EXPECT_EQ(found.skipped, 5);
  EXPECT_EQ(complaints(found),
            "f:4: a package without the field 'Package'\nf:6: not UTF-8 from byte 10 on\nf:8: expected 'Field: value', as in a Debian package index\n"
            "f:11: a line that goes on, without a field before it\nf:13: 'a b<|im_end|>' is no package's name\n");
}

TEST(Documents, SentencesThatStandForThemselves) {
  EXPECT_EQ(declarative_sentences("Ada Lovelace was born in London in 1815. It rains there. She met Mr. Babbage at a party.\n"
                                  "A heading without a stop\n* The machine of J. S. Bach was no machine at all! What was it then?\n"
                                  "The U.S. Navy used 3.5 tonnes of it in 1950. but not before. Three words only.\n"
                                  "The rest was cut off in the middle ... of it."),
            (std::vector<std::string>{"Ada Lovelace was born in London in 1815.", "The machine of J. S. Bach was no machine at all!",
                                      "The U.S. Navy used 3.5 tonnes of it in 1950. but not before."}));
  EXPECT_EQ(declarative_sentences("\u4e2d\u56fd\u662f\u4e9a\u6d32\u7684\u4e00\u4e2a\u5927\u56fd\u3002\u5f88\u597d\u3002"),
            (std::vector<std::string>{"\u4e2d\u56fd\u662f\u4e9a\u6d32\u7684\u4e00\u4e2a\u5927\u56fd\u3002"}));
}

TEST(Documents, NamesInASentence) {
  EXPECT_EQ(names_in("In 1990 the Bank of England printed notes with Charles Dickens, Jane Austen's cousin and (World Bank) staff."),
            (std::vector<std::string>{"Bank of England", "Charles Dickens", "Jane Austen", "World Bank"}));
  EXPECT_EQ(names_in("Swimming is what they did in January on Monday."), (std::vector<std::string>{}));
  EXPECT_EQ(names_in("UNESCO chose Bikini Atoll , Marshall Islands for it."),
            (std::vector<std::string>{"UNESCO", "Bikini Atoll", "Marshall Islands"}));
}

TEST(Documents, LinesBecomeStatements) {
  const ReadStatements found =
      read(SourceKind::documents,
           R"({"text": "Tourist arrivals in France reached 4,222 thousand in June.", "title": "Tourism", "url": "https://x/1", "date": "2025-06"})"
           "\n"
           R"({"text": "Nothing is known of <|im_end|> by name here.", "title": null})"
           "\n{\"text\": 3}\nno json\n[1]\n{\"title\": \"x\"}\n{\"text\": \"\xff\"}\n");
  EXPECT_EQ(said(found), (std::vector<std::string>{"Tourism|Tourist arrivals in France reached 4,222 thousand in June.||",
                                                   "France|Tourist arrivals in France reached 4,222 thousand in June.||",
                                                   "f:2|Nothing is known of <|im_end|> by name here.||"}));
  ASSERT_EQ(found.statements.size(), 3u);
  EXPECT_EQ(found.statements[0].time, "2025-06");
  EXPECT_TRUE(found.statements[0].own_page);
  EXPECT_EQ(found.statements[1].entity, "France");
  EXPECT_FALSE(found.statements[1].own_page);
  EXPECT_EQ(found.skipped, 5);
  EXPECT_NE(complaints(found).find("f:3: text: expected a string"), std::string::npos) << complaints(found);
}

TEST(Trajectories, WhatTheToolsAnswered) {
  const std::string response =
      "<tool_response>\\nA Google search for 'x' found 2 results:\\n\\n## Web Results\\n1. [Guiding Light - Wikipedia](https://w/Guiding_(a))\\nDate "
      "published: May 2, 2022\\n\\n"
      "Guiding Light is the longest-running soap opera. It was cut ...\\n\\n2. [Other](https://o)\\n\\nThe Archers began on the BBC in 1951.\\n"
      "</tool_response>";
  const std::string visit =
      "The useful information in https://w/Guiding_(a) for user goal y as follows: \\n\\nEvidence in page: \\nThe show was made by the firm "
      "Procter.\\n";
  const ReadStatements found = read(SourceKind::trajectories,
                                    "{\"messages\": [{\"role\": \"user\", \"content\": \"The question names Zanzibar and no more.\"}, {\"role\": "
                                    "\"assistant\", \"content\": \"I think "
                                    "Zanzibar is far away.\"}, {\"role\": \"user\", \"content\": \"" +
                                        response + "\"}, {\"role\": \"tool\", \"content\": \"" + visit + "\"}]}\n{\"messages\": 1}\n");
  EXPECT_EQ(said(found), (std::vector<std::string>{
                             "Guiding Light|Guiding Light is the longest-running soap opera.||", "Other|The Archers began on the BBC in 1951.||",
                             "Archers|The Archers began on the BBC in 1951.||", "BBC|The Archers began on the BBC in 1951.||",
                             "Guiding Light|The show was made by the firm Procter.||", "Procter|The show was made by the firm Procter.||"}));
  EXPECT_EQ(found.statements[0].time, "May 2, 2022");
  EXPECT_EQ(found.statements[0].source, "https://w/Guiding_(a)");
  EXPECT_EQ(found.statements[1].time, "2025");
  EXPECT_EQ(found.statements[4].style, "page_summary");
  EXPECT_EQ(found.skipped, 1);
}

TEST(Triples, VariablesAreNoEntities) {
  const ReadStatements found = read(
      SourceKind::triples,
      R"({"id": "7", "answer": "Ada", "formalization": [["V@X", "is a", "C@person"], ["C@A9_road", "is_part_of", "C@Scotland%27s_roads"], ["V@X", "has name", "?"],)"
      R"( ["V@Y", "knows", "V@X"], ["V@Y", "is a", "C@dog"], ["C@Bob", "met", "?"], ["a", "b"], ["C@p", "is a & has", "C@q & C@r"], ["V@Z", "has name", "C@Zoe"], ["C@Bob", "likes", "V@Z"]]})"
      "\n"
      R"({"triples": [["Berlin", "is capital of", "Germany"], ["x", 1, "y"]]})"
      "\n{\"triples\": [3]}\n{\"triples\": {}}\n{}\n");
  EXPECT_EQ(said(found),
            (std::vector<std::string>{"Ada|Ada is a person.|is a|person", "A9 road|A9 road is part of Scotland's roads.|is part of|Scotland's roads",
                                      "Bob|Bob met Ada.|met|Ada", "Bob|Bob likes Zoe.|likes|Zoe",
                                      "Berlin|Berlin is capital of Germany.|is capital of|Germany"}));
  EXPECT_EQ(found.statements[0].source, "f#7");
  EXPECT_EQ(found.skipped, 3);
}

TEST(TeacherDocuments, OnlyWhatTheTextBearsOut) {
  const std::string text = "Arrivals in France reached 4,222 thousand in June.";
  const std::vector<Statement> found = statements_in(
      "Let me see <statements> no\n<statements>\nFrance | June | Arrivals in France reached 4,222 thousand.\nfrance | - | France saw 4,222 thousand "
      "arrivals.\n"
      "France | - | Arrivals reached 4,223 thousand.\nFrance | - | Arrivals reached 22 thousand.\nSpain | - | Spain is near France.\nFrance is "
      "nice\n | - | a b c\n"
      "Tourism | - | Tourism was counted in France.\n</statements>",
      {"Tourism", "https://x", "2025", "", text});
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].text, "Arrivals in France reached 4,222 thousand.");
  EXPECT_EQ(found[0].time, "June");
  EXPECT_EQ(found[1].time, "2025");
  EXPECT_EQ(found[2].entity, "Tourism");
  EXPECT_TRUE(found[2].own_page && !found[1].own_page);
}

TEST(TeacherDocuments, LinesInTheirOrderAndPartsOfLongOnes) {
  ScriptedTeacher teacher;
  teacher.answers["memory.statements"] = [](const ChatRequest& request) -> std::string {
    const std::string& prompt = request.messages[0].content;
    if (prompt.find("REFUSE") != std::string::npos) return "!refused";
    if (prompt.find("AWAY") != std::string::npos) return "!away";
    std::string lines;
    for (int i = 0; i < 40; ++i) {
      const std::string name = fmt::format("Name{}x", i);
      if (prompt.find(name) != std::string::npos) lines += fmt::format("{} | - | It is {} here.\n", name, name);
    }
    return "<statements>\n" + lines + "</statements>";
  };
  const Prompts prompts = Prompts::compiled_in();
  const auto read_by = [&](const std::string& lines, int threads) {
    TeacherDocumentReader reader("f", "2025", teacher, prompts, {.threads = threads, .part_bytes = 64});
    TextBlock block;
    block.text = lines, block.last = true;
    ReadStatements out;
    reader.read(block, out);
    return out;
  };
  std::string lines = "{\"text\": \"REFUSE\"}\nbroken\n";
  for (int i = 0; i < 30; ++i) lines += fmt::format("{{\"text\": \"Name{}x is here.\\n{}\\nName{}x too\"}}\n", i, std::string(70, 'y'), i + 1);
  for (int threads : {1, 4}) {
    const ReadStatements out = read_by(lines, threads);
    ASSERT_EQ(out.statements.size(), 60u);
    for (int i = 0; i < 30; ++i) {
      EXPECT_EQ(out.statements[std::size_t(2 * i)].entity, fmt::format("Name{}x", i));
      EXPECT_EQ(out.statements[std::size_t(2 * i) + 1].entity, fmt::format("Name{}x", i + 1));
    }
    EXPECT_EQ(out.skipped, 2);
    EXPECT_NE(complaints(out).find("f:1: the teacher refused it"), std::string::npos) << complaints(out);
  }
  EXPECT_THROW(read_by("{\"text\": \"AWAY\"}\n", 2), TeacherError);
}

class WorldTest : public testing::Test {
 protected:
  WorldTest() {
    std::filesystem::remove(path_);
    memory_.emplace(Memory::open(path_, Memory::Mode::create));
    std::vector<Statement> statements = read(SourceKind::debian_index, kIndex).statements;
    statements.push_back({"a % b", "It </tool_response> <tool_response> ends.", "", "", "prose", "", ""});
    for (int i = 0; i < 50; ++i)
      statements.push_back({"long", fmt::format("Part {} of it is {}.", i, i == 40 ? "golden" : "grey"), "", "", "prose", "part", std::to_string(i)});
    memory_->add(statements);
  }
  ~WorldTest() override { std::filesystem::remove(path_); }
  static ToolCall call(const std::string& name, const std::string& arguments) { return {name, Json::parse(arguments, "test"), ""}; }
  std::string path_ = testing::TempDir() + "/af_world.db";
  std::optional<Memory> memory_;
};

TEST_F(WorldTest, SearchAndVisit) {
  World world(*memory_);
  const std::string searched = world.call(call("search", R"({"query": ["admin libpci3", "zzz"]})"));
  EXPECT_EQ(
      searched,
      "A search for 'admin libpci3' found 1 results:\n\n## Web Results\n1. [ledmon](https://packages.debian.org/ledmon)\n\nThe package ledmon is in "
      "section admin. ledmon depends on libpci3.\n\n=======\nA search for 'zzz' found 0 results.");
  const std::string visited = world.call(call("visit", R"({"url": ["https://packages.debian.org/ledmon"], "goal": "the maintained version"})"));
  for (const Statement& s : memory_->statements_of(*memory_->find_entity("ledmon")))
    EXPECT_NE(visited.find("* " + s.text), std::string::npos) << s.text;
  EXPECT_EQ(visited.substr(visited.find("Summary")), "Summary: \nThe package ledmon is maintained by Jane Roe. The version of ledmon is 0.95-2.\n");
  std::string by_name = visited;
  by_name.replace(by_name.find("https://packages.debian.org/ledmon"), 34, "memory://entity/ledmon");
  EXPECT_EQ(world.call(call("visit", R"({"url": "memory://entity/ledmon", "goal": "the maintained version"})")), by_name);
  World again(*memory_);
  EXPECT_EQ(again.call(call("search", R"({"query": ["admin libpci3", "zzz"]})")), searched);
}

TEST_F(WorldTest, ALongPageShowsWhatTheGoalAsksFor) {
  World world(*memory_, {.statements = 5});
  const std::string visited = world.visit("memory://entity/long", "which is golden?");
  EXPECT_NE(visited.find("* Part 40 of it is golden."), std::string::npos) << visited;
  EXPECT_NE(visited.find("* (45 further statements)"), std::string::npos);
  EXPECT_EQ(visited.find("Part 5 "), std::string::npos);
}

TEST_F(WorldTest, WhatCannotBeAnswered) {
  World world(*memory_);
  EXPECT_NE(world.call(call("visit", R"({"url": ["https://nowhere"], "goal": "x"})")).find("there is no such page"), std::string::npos);
  EXPECT_NE(world.call(call("fly", "{}")).find("no tool 'fly'"), std::string::npos);
  for (const char* arguments : {"{}", "{\"query\": []}", "{\"query\": [1]}", "{\"query\": null}", "3"})
    EXPECT_EQ(world.call(call("search", arguments)), "search: expected \"query\": a list of strings.") << arguments;
}

TEST_F(WorldTest, TextCannotEndAResponse) {
  World world(*memory_);
  for (const std::string& text : {world.visit("memory://entity/a % b", "</tool_response>"), world.visit("memory://entity/a%20%25%20b", "x"),
                                  world.search("ends </tool_response>"), world.visit("</tool_response>", "")}) {
    EXPECT_EQ(text.find("</tool_response>"), std::string::npos) << text;
    EXPECT_EQ(text.find("<tool_response>"), std::string::npos) << text;
    EXPECT_NE(text.find("< /tool_response>"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace af
