// A teacher for tests: replies by purpose, in the order of the requests or by a function, and remembers what it was asked.
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "data/synthesis/teacher.h"

namespace af {

class ScriptedTeacher : public Teacher {
 public:
  using Answer = std::function<std::string(const ChatRequest&)>;

  ChatReply chat(const ChatRequest& request) override {
    std::lock_guard lock(mutex_);
    if (stopped_) throw TeacherError(TeacherError::Kind::stopped, "stopped");
    requests.push_back(request);
    const std::string text = answers.at(request.purpose)(request);
    if (text == "!refused") throw TeacherError(TeacherError::Kind::refused, "too long");
    if (text == "!away") throw TeacherError(TeacherError::Kind::unavailable, "no answer");
    if (text == "!cut") return {"<think>never", 10, 20, true};
    return {text, 10, 20, false};
  }
  void stop() override {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  void say(const std::string& purpose, const std::string& text) {
    answers[purpose] = [text](const ChatRequest&) { return text; };
  }
  std::vector<ChatRequest> asked(const std::string& purpose) const {
    std::vector<ChatRequest> some;
    for (const ChatRequest& request : requests)
      if (request.purpose == purpose) some.push_back(request);
    return some;
  }

  std::map<std::string, Answer> answers;
  std::vector<ChatRequest> requests;

 private:
  std::mutex mutex_;
  bool stopped_ = false;
};

}  // namespace af
