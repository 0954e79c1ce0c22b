/* LiteRT's profiler tells the operators' times as a table for people, whose columns are
 *
 *   [node type] [start] [first] [avg ms] [%] [cdf%] [mem KB] [times called] [Name]
 *
 * The first of its tables has them in the order that they ran in; a blank line ends it. Its events
 * tell the same in structs that change from release to release. */
#include "runner.h"

#include <errno.h>
#include <string.h>

#define DELEGATE "Delegate/" /* what XNNPACK runs */

/* The operator of a line, between the two pointers, and its time; 0 of what is no such line. */
static int operator_of(const char *line, const char **begin, const char **end, double *ms) {
  double numbers[6];
  int calls;
  while (*line == ' ' || *line == '\t') line++;
  for (const char *at = line; *at && *at != '\n'; at++) {
    if (at == line || (*at != ' ' && *at != '\t') || at[-1] == ' ') continue;
    int found = sscanf(at, "%lf %lf %lf %lf%% %lf%% %lf %d", &numbers[0], &numbers[1], &numbers[2],
                       &numbers[3], &numbers[4], &numbers[5], &calls);
    if (found != 7) continue;
    if (strncmp(line, DELEGATE, strlen(DELEGATE)) == 0) line += strlen(DELEGATE);
    *begin = line;
    *end = at;
    *ms = numbers[2];
    return 1;
  }
  return 0;
}

void write_operators(const char *path, const char *summary) {
  FILE *file = fopen(path, "wb");
  if (file == NULL) refuse("%s cannot be written: %s", path, strerror(errno));
  fputs("{\"operators\": [", file);
  int count = 0;
  const char *begin, *end;
  double ms;
  for (const char *line = summary; line; line = strchr(line, '\n')) {
    if (*line == '\n') line++;
    if (operator_of(line, &begin, &end, &ms) && end > begin) {
      char name[200];
      size_t length = (size_t)(end - begin);
      if (length >= sizeof name) length = sizeof name - 1;
      memcpy(name, begin, length);
      name[length] = 0;
      fputs(count++ ? ", {\"op\": " : "{\"op\": ", file);
      write_text(file, name);
      fprintf(file, ", \"ms\": %.6f}", ms);
    } else if (count) {
      break; /* the first table ends; the next has the same operators, the slowest first */
    }
  }
  fputs("]}\n", file);
  if (fclose(file) != 0) refuse("the profile cannot be written: %s", strerror(errno));
}
