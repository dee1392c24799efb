#include "turns.hpp"

#include "workspace.hpp"

namespace fastlayer {
namespace {

thread_local Lookout* t_lookout = nullptr;

}  // namespace

Lookout* set_lookout(Lookout* lookout) {
  Lookout* const before = t_lookout;
  t_lookout = lookout;
  return before;
}

Lookout* lookout() { return t_lookout; }

bool look_up() {
  Lookout& asked = *t_lookout;
  if (!asked.stopped) {
    const WorkspaceAside aside;
    asked.stopped = asked.stop(asked.context);
  }
  asked.due = asked.stopped ? 0 : now_ns() + kTurnNs;
  return !asked.stopped;
}

}  // namespace fastlayer
