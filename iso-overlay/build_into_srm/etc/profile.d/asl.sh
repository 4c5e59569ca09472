# The rescue medium's greeting: once in every interactive login shell on a terminal.
case $- in
  *i*)
    if [ -t 0 ] && [ -t 1 ] && [ -z "${ASL_GREETED-}" ]; then
      ASL_GREETED=yes
      export ASL_GREETED
      /usr/local/lib/asl/greet || true
    fi
    ;;
esac
